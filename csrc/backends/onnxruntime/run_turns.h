// RunTurns: which runs of a session wait for their end, so that the engine gives back what it keeps.

#pragma once

#include <cstdint>
#include <thread>
#include <unordered_map>

#include "base/mutex.h"

namespace penstock::ort {

// kEnqueued: a run returns when it is enqueued. kOver: it returns when the device is through with it.
enum class RunEnd { kEnqueued, kOver };

// Kernels of the engine that stage something in pinned memory leave it to the end of the run, and
// only a run that waits for its end has one: without any, that memory grows from batch to batch. So
// each thread's every kPeriod-th run waits. They are counted by thread, since from 1.30 on the engine
// keeps what is left to the end by thread (before, by session), and which instance's thread submits a
// batch is open: one count for all could pass over a thread for ever.
//
// Threading: thread-safe.
class RunTurns {
 public:
  // A prime, so that it keeps time with no number of slots, instances or sizes of batches.
  static constexpr uint32_t kPeriod = 61;

  // Counts a run of the calling thread's. A thread that has another's id of before goes on from its
  // count: what a thread left went with it.
  RunEnd Next() EXCLUDES(mu_) {
    MutexLock lock(mu_);
    uint32_t& runs = runs_[std::this_thread::get_id()];
    runs = (runs + 1) % kPeriod;
    return runs == 0 ? RunEnd::kOver : RunEnd::kEnqueued;
  }

 private:
  Mutex mu_;
  // Guarded by mu_.
  std::unordered_map<std::thread::id, uint32_t> runs_ GUARDED_BY(mu_);
};

}  // namespace penstock::ort
