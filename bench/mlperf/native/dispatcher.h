// Dispatcher: a thread that sends LoadGen's samples to a carrier and takes the answers.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/event_fd.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/thread.h"
#include "load/outcome.h"
#include "native/recorder.h"
#include "native/target.h"

namespace penstock::loadgen {

// Carries samples to what answers them.
// Threading: confined to the dispatcher's thread, but for construction.
class Carrier {
 public:
  class Sink {
   public:
    virtual ~Sink() = default;
    // Exactly once for every token that was sent, from within Send, Turn or Abandon.
    virtual void OnAnswer(size_t token, const load::Answer& answer) = 0;
  };
  // `wake_fd` ends a Turn that waits.
  using Factory = std::function<Result<std::unique_ptr<Carrier>>(Sink* sink, int wake_fd)>;

  virtual ~Carrier() = default;
  // Sent with the next Turn.
  virtual void Send(size_t token, size_t sample) = 0;
  // Waits until an answer or the wake-up is there, and takes all answers.
  virtual void Turn() = 0;
  // What is under way gets an answer that says so, or its own.
  virtual void Abandon() = 0;
};

// Threading: Issue as Target, in_flight on any thread.
// Ownership: owns thread and carrier; borrows the recorder.
// Lifecycle: Start; Issue; the destructor, which abandons what is under way.
// Blocking: Start, as long as the carrier takes to connect; the destructor, until the thread has
// ended.
class Dispatcher final : public Target, private Carrier::Sink {
 public:
  // `window`: samples under way at the most; 0 = any number. With a window a sample's time begins
  // when it is sent, without when it is issued.
  static Result<std::unique_ptr<Dispatcher>> Start(Recorder* recorder, size_t window,
                                                   const Carrier::Factory& factory);
  ~Dispatcher() override;

  void Issue(std::span<const Query> queries) override;

 private:
  struct Waiting {
    Query query;
    int64_t issued_ns = 0;
  };

  Dispatcher(Recorder* recorder, size_t window) : recorder_(*recorder), window_(window) {}

  void Run() noexcept;
  bool TakeIssued();
  void SendSome();
  size_t NewToken(const Waiting& waiting);
  void OnAnswer(size_t token, const load::Answer& answer) override;

  // Constant after Start.
  Recorder& recorder_;
  const size_t window_;
  const EventFd wake_;
  std::unique_ptr<Carrier> carrier_;  // used by the thread alone

  // Only on the dispatcher's thread.
  std::vector<Waiting> backlog_;
  size_t next_ = 0;               // of backlog_, to be sent
  std::vector<Waiting> pending_;  // under way, by token
  std::vector<size_t> free_;      // tokens

  Mutex mu_;
  // Guarded by mu_.
  std::vector<Waiting> issued_ GUARDED_BY(mu_);
  bool is_armed_ GUARDED_BY(mu_) = false;  // the thread waits or will: it must be woken
  bool is_closing_ GUARDED_BY(mu_) = false;

  Thread thread_;
};

}  // namespace penstock::loadgen
