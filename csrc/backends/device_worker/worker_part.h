// WorkerPart: a model, or an instance of one, in the worker of a device (device_worker.h).

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "backends/device_worker/load_document.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "worker/batch_channel.h"
#include "worker/packet_socket.h"
#include "worker/session.h"

namespace penstock {

class WorkerPart;

struct WorkerPartOptions {
  std::string label;     // "model 'm' version 1": for messages
  std::string document;  // of a model EncodeDeviceLoad; of an instance its name
  std::shared_ptr<WorkerPart> model = nullptr;  // of an instance: what it is one of
  int64_t load_limit_ns = 0;                    // until it is ready; 0 = no limit
  int64_t execution_limit_ns = 0;               // of one batch; 0 = no limit
};

// A model or an instance in a device's worker.
// Ownership: shared by who added it and the worker's thread. Its members are the worker's.
class WorkerPart {
 public:
  explicit WorkerPart(WorkerPartOptions options) : options_(std::move(options)) {}

  const WorkerPartOptions& options() const { return options_; }
  // Of a model, once it was added.
  const DeviceDescription& description() const { return description_; }

 private:
  friend class DeviceWorker;

  enum class State { kWanted, kMaking, kReady, kFailed, kGone };

  // A connection of one life of the process.
  struct Link {
    Link(std::shared_ptr<WorkerSession> its_session, OwnedFd fd)
        : session(std::move(its_session)), socket(std::move(fd)), channel(socket) {}
    const std::shared_ptr<WorkerSession> session;
    const PacketSocket socket;
    BatchChannel channel;
    bool is_asked = false, has_told = false;  // what the model uses; under its run_mu_
  };

  const WorkerPartOptions options_;
  DeviceDescription description_;  // constant once it was ready

  // One batch, or question, at a time; an instance's before its model's, before the worker's mu_.
  Mutex run_mu_;
  uint64_t batches_ GUARDED_BY(run_mu_) = 0;
  std::atomic<int64_t> making_since_ns_ = kNever;   // only the worker's thread sets it
  std::atomic<int64_t> running_since_ns_ = kNever;  // a batch, or question; set under run_mu_
  // Of a model.
  std::vector<DeviceUse> uses_ GUARDED_BY(run_mu_);  // as last told
  std::atomic<int64_t> asked_ns_ = 0;                // when that was asked for last

  // Guarded by the worker's mu_.
  uint64_t id_ = 0;
  State state_ = State::kWanted;
  Status status_;               // why it has failed
  bool was_ready_ = false;      // it is made again after a restart
  int ends_while_made_ = 0;     // how often the process ended while it was made again, in a row
  std::shared_ptr<Link> link_;  // while it is being made or ready
};

}  // namespace penstock
