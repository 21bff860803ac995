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
#include "worker/process.h"

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

  using Memory = std::shared_ptr<const ExportedMemory>;

  void ServeConnection(OwnedFd fd) noexcept;
  void ServeModel(ChildChannel& channel, const WorkerPacket& packet);
  void ServeInstance(ChildChannel& channel, const WorkerPacket& packet);
  Result<Model> Load(ChildChannel& channel, const WorkerPacket& packet);
  void RunBatches(ChildChannel& channel, const Model& model, BackendInstance& instance);
  Status Execute(ChildChannel& channel, const WorkerPacket& packet, const ModelSignature& signature,
                 BackendInstance& instance, std::vector<BatchOutput>* outputs);
  Result<std::vector<InputPart>> TakeInputParts(ChildChannel& channel, const WorkerRun& run)
      EXCLUDES(mu_);
  Result<std::vector<OutputPart>> TakeOutputParts(const WorkerRun& run) EXCLUDES(mu_);
  // False: the server does not take the answer.
  bool AnswerReach(ChildChannel& channel, const WorkerPacket& packet, const Model& model,
                   BackendInstance& instance);
  // The memory of that number, known from now on.
  Memory LearnMemory(uint64_t id, const WorkerMemoryHandle& handle) EXCLUDES(mu_);
  Result<Memory> FindMemory(uint64_t id) EXCLUDES(mu_);
  // Whoever has the memory last closes it, and tells the server.
  void Forget(uint64_t id) EXCLUDES(mu_);
  // Where an instance says that its device is lost there is nothing more to be done here. For what is
  // no instance's: it asks all of them, which may ask the device.
  void EndIfLost(std::string_view label, std::string_view why) EXCLUDES(mu_);
  [[noreturn]] static void EndLost(std::string_view label, std::string_view why);

  const PacketSocket control_{OwnedFd(kWorkerSocketFd)};  // the process's own
  BackendRegistry backends_;                              // own synchronisation

  Mutex mu_;
  // Guarded by mu_. An instance's thread keeps its model.
  std::map<uint64_t, std::shared_ptr<Model>> models_ GUARDED_BY(mu_);
  std::set<const BackendInstance*> instances_ GUARDED_BY(mu_);
  std::map<uint64_t, Memory> memories_ GUARDED_BY(mu_);  // clients', by the server's numbers
};

}  // namespace penstock
