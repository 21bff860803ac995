// ChildServer: what a device worker does: loads models and runs their batches, for the server that
// started it (device_worker.h).

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/registry.h"
#include "base/mutex.h"
#include "worker/child_channel.h"

namespace penstock {

// A connection is a thread: of a model it waits for the connection's end, of an instance it runs
// batches, one at a time.
// Threading: thread-safe.
// Lifecycle: made once, and never destroyed: the process ends in Serve, or where the device is lost.
class ChildServer {
 public:
  // Plug-ins are looked for in `directories`.
  explicit ChildServer(std::vector<std::string> directories) : backends_(std::move(directories)) {}

  // Takes connections from the process's own socket until the server wants no more.
  void Serve();

 private:
  struct Model {
    Backend* backend = nullptr;
    std::unique_ptr<BackendModel> model;
    std::string label;
  };

  void ServeConnection(OwnedFd fd) noexcept;
  void ServeModel(ChildChannel& channel, const WorkerPacket& packet);
  void ServeInstance(ChildChannel& channel, const WorkerPacket& packet);
  Result<Model> Load(ChildChannel& channel, const WorkerPacket& packet);
  void RunBatches(ChildChannel& channel, const Model& model, BackendInstance& instance);
  // Where any instance says that its device is lost there is nothing more to be done here.
  void EndIfLost(const std::string& label, const Status& status) EXCLUDES(mu_);

  BackendRegistry backends_;  // own synchronisation

  Mutex mu_;
  // Guarded by mu_. An instance's thread keeps its model.
  std::map<uint64_t, std::shared_ptr<Model>> models_ GUARDED_BY(mu_);
  std::set<const BackendInstance*> instances_ GUARDED_BY(mu_);
};

}  // namespace penstock
