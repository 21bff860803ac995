// Instance: one thread's worth of a version. It pulls a batch when idle, runs it on its backend
// instance and delivers the outcomes. Where the computation takes place (this process or a worker)
// is the backend instance's affair.

#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/thread.h"
#include "batcher/batcher.h"
#include "engine/batch_io.h"
#include "engine/statistics.h"
#include "engine/version_spec.h"

namespace penstock {

// Threading: confined to its creator until Start, then to its thread "ps-<model>".
// Ownership: owns the backend instance; borrows spec, batcher, statistics, clock, which outlive its
// thread. Lifecycle: Execute* (warm-up) -> Start -> [the batcher closes] -> Join. Blocking: Join
// waits for the running batch and for the batcher to be closed and empty.
class Instance {
 public:
  struct Environment {
    const VersionSpec& spec;
    Batcher& batcher;
    StatisticsRecorder& statistics;
    Clock& clock;
  };

  Instance(std::string name, std::unique_ptr<BackendInstance> backend, Environment environment);

  // Runs `batch` on the calling thread and leaves each request its outputs; delivers nothing. An
  // exception of the backend is an INTERNAL status: a buggy model fails its batch, not the server.
  Status Execute(const Batch& batch, BatchTimes* times) noexcept;
  // `on_exit` is called on the thread as its last act.
  void Start(std::function<void()> on_exit);
  void Join() { thread_.Join(); }

 private:
  Status ExecuteOrThrow(const Batch& batch, BatchTimes* times);
  void Run() noexcept;
  void RunBatch(Batch* batch, std::vector<Status>* outcomes);

  // Constant after construction.
  const std::string name_;
  const std::unique_ptr<BackendInstance> backend_;
  const Environment environment_;

  // Only on the instance's thread (its creator's before Start).
  BatchIo io_;

  Thread thread_;  // last: it uses everything above
};

}  // namespace penstock
