// WorkerSession: one life of a worker: its process, and what is said to it.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "worker/batch_channel.h"
#include "worker/line_relay.h"
#include "worker/process.h"

namespace penstock {

// Threading: thread-safe.
// Ownership: owns the process.
// Lifecycle: Start, then whoever watches the process calls End once.
class WorkerSession {
 public:
  static Result<std::shared_ptr<WorkerSession>> Start(const WorkerLaunch& launch);

  WorkerProcess& process() { return *process_; }
  // Over the process's own socket.
  BatchChannel& channel() { return channel_; }

  // Hands on what it has printed by now, so much at once; false once it will print no more.
  bool ReadLog(LineRelay* lines, int64_t now_ns);

  // Kills the worker; `how` is what End says of it, where it has not ended by itself before.
  void Kill(const std::string& how) EXCLUDES(mu_);
  // How the process has ended; nullopt while it runs.
  std::optional<std::string> End() EXCLUDES(mu_);

 private:
  explicit WorkerSession(std::unique_ptr<WorkerProcess> process)
      : process_(std::move(process)), channel_(process_->socket()) {}

  // Constant after construction.
  const std::unique_ptr<WorkerProcess> process_;

  BatchChannel channel_;  // own synchronisation

  Mutex mu_;
  // Guarded by mu_.
  std::string killed_how_ GUARDED_BY(mu_);
  bool has_ended_ GUARDED_BY(mu_) = false;
};

}  // namespace penstock
