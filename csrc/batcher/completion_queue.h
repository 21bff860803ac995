// CompletionQueue: carries finished requests from the core's threads to one event loop.
//
// The pattern of gRPC's aio completion queue: a native thread pushes under a lock and makes a file
// descriptor readable, without the GIL; the loop's reader takes everything at once.

#pragma once

#include <atomic>
#include <vector>

#include "base/event_fd.h"
#include "base/mutex.h"
#include "batcher/request.h"

namespace penstock {

// Threading: Push and Signal on any thread; Take on the loop's thread.
// Ownership: owns the eventfd, and a reference on each request pushed and not yet taken.
// Cost: one lock per Push; one eventfd write per batch (Signal after its last Push), none while a
// signal is still unread.
class CompletionQueue {
 public:
  CompletionQueue() = default;
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  // Readable while completions wait.
  int fd() const { return event_.fd(); }

  void Push(RequestRef request);
  // Makes fd() readable if something was pushed since the last time.
  void Signal();
  // Makes fd() readable though nothing was pushed: for what was taken and is still to be told.
  void SignalAgain();
  // Clears fd() and moves everything to `out` (cleared first), oldest first. Ends a turn.
  void Take(std::vector<RequestRef>* out);

  // On the loop's thread, for a scope that ends with a Take: until then nothing need be signalled.
  class Turn {
   public:
    explicit Turn(CompletionQueue& queue) : queue_(queue) { queue_.is_in_turn_.store(true); }
    ~Turn() {
      queue_.is_in_turn_.store(false);
      queue_.Signal();  // for what was pushed and not taken, if the scope was left early
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    CompletionQueue& queue_;
  };

 private:
  // Constant after construction.
  const EventFd event_;

  // Own synchronisation.
  std::atomic<bool> needs_signal_{false};
  std::atomic<bool> is_in_turn_{false};
  std::atomic<bool> is_readable_{false};  // event_ was written and not yet read

  Mutex mu_;
  // Guarded by mu_.
  std::vector<RequestRef> waiting_ GUARDED_BY(mu_);
};

}  // namespace penstock
