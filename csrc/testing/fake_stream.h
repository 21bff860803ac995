// FakeStream: a stream of the fake GPU, one thread that does what it is given, in order.

#pragma once

#include <semaphore.h>

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "base/mutex.h"
#include "base/thread.h"
#include "gpu/gpu_error.h"
#include "testing/race_checker.h"

namespace penstock {

// A copy or a kernel: what it reads and writes, and the doing of it.
struct FakeWork {
  std::vector<MemoryRange> reads = {}, writes = {};
  std::function<gpu::Error()> run = {};
};

// One record of an event: set when the stream comes to it.
// Threading: thread-safe.
class FakeRecord {
 public:
  void Set() EXCLUDES(mu_);
  bool is_set() const EXCLUDES(mu_);
  void Wait() EXCLUDES(mu_);

  RaceChecker::Clock clock;  // of the stream, where it was recorded; the device's lock guards it

 private:
  mutable Mutex mu_;
  CondVar set_;
  bool is_set_ GUARDED_BY(mu_) = false;
};

// What all streams of a device share. None of it orders one thread's memory behind another's.
struct FakeDeviceState {
  std::atomic<int> fault{0};           // the sticky error that has happened, or 0
  std::atomic<int64_t> work_left{-1};  // the device faults at this many works from now; -1 = never
  std::atomic<int> fault_to_come{0};   // with this
  std::atomic<bool> is_held{false};    // streams stop before what comes next

  Mutex hold_mu;
  CondVar released;
};

// What is enqueued is published to the thread by a release and a semaphore, and nothing goes back
// but by records: for ThreadSanitizer the host knows no more of a stream than it asked for, and two
// streams are ordered by events alone.
//
// Threading: Push by one thread at a time.
// Ownership: borrows `state` and the records, which outlive it.
// Blocking: the destructor waits for what was pushed.
class FakeStream {
 public:
  // Before each work the thread yields up to `max_yields` times, as the generator says.
  FakeStream(FakeDeviceState& state, uint64_t seed, int max_yields);
  ~FakeStream();
  FakeStream(const FakeStream&) = delete;
  FakeStream& operator=(const FakeStream&) = delete;

  void PushWork(std::function<gpu::Error()> run) { Push({.run = std::move(run)}); }
  void PushSet(FakeRecord& record) { Push({.set = &record}); }
  void PushWait(FakeRecord& record) { Push({.wait = &record}); }
  // Done even when the device has faulted.
  void PushRelease(std::function<void()> release) { Push({.release = std::move(release)}); }

 private:
  struct Item {
    std::function<gpu::Error()> run = {};
    std::function<void()> release = {};
    FakeRecord* set = nullptr;
    FakeRecord* wait = nullptr;
    bool is_end = false;
  };
  struct Node {
    Item item;
    std::atomic<Node*> next{nullptr};
  };

  void Push(Item item);
  void Loop();
  bool Do(Item& item);  // false: it was the end
  void Work(const std::function<gpu::Error()>& run);
  void AwaitRelease();

  FakeDeviceState& state_;
  const int max_yields_;
  std::minstd_rand random_;  // the thread's
  sem_t pushed_;
  Node* first_;  // the thread's: was done already
  Node* last_;   // who pushes: its `next` is where the next one goes
  Thread thread_;
};

}  // namespace penstock
