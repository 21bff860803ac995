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
#include "load/outcome.h"
#include "native/lasting_thread.h"
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

// How many samples may be under way, and how many may be sent in a second; 0 = any number.
struct Limits {
  size_t window = 0;
  double per_s = 0.0;
};

// Threading: Issue as Target.
// Ownership: owns thread and carrier; borrows the recorder.
// Lifecycle: Start; Issue; the destructor, which abandons what is under way.
// Blocking: Start, as long as the carrier takes to connect; the destructor, until the thread has
// ended.
class Dispatcher final : public Target, private Carrier::Sink {
 public:
  // With a window a sample's time begins when it is sent, without when it is issued. The rate holds
  // back what would otherwise go at once; what is late by an answer's time catches up.
  static Result<std::unique_ptr<Dispatcher>> Start(Recorder* recorder, Limits limits,
                                                   const Carrier::Factory& factory);
  ~Dispatcher() override;

  void Issue(std::span<const Query> queries) override;

 private:
  struct Waiting {
    Query query;
    int64_t issued_ns = 0;
  };

  Dispatcher(Recorder* recorder, Limits limits) : recorder_(*recorder), limits_(limits) {}

  void Run() noexcept;
  bool TakeIssued();
  void SendSome();
  size_t Room();
  size_t Due();
  bool AwaitRate();
  size_t NewToken(const Waiting& waiting);
  void OnAnswer(size_t token, const load::Answer& answer) override;

  // Constant after Start.
  Recorder& recorder_;
  const Limits limits_;
  const EventFd wake_;
  std::unique_ptr<Carrier> carrier_;  // used by the thread alone

  // Only on the dispatcher's thread.
  std::vector<Waiting> backlog_;
  size_t next_ = 0;               // of backlog_, to be sent
  std::vector<Waiting> pending_;  // under way, by token
  std::vector<size_t> free_;      // tokens
  size_t sent_ = 0;
  int64_t began_ns_ = 0;  // of sending

  Mutex mu_;
  // Guarded by mu_.
  std::vector<Waiting> issued_ GUARDED_BY(mu_);
  bool is_armed_ GUARDED_BY(mu_) = false;  // the thread waits or will: it must be woken
  bool is_closing_ GUARDED_BY(mu_) = false;

  LastingThread thread_;
};

}  // namespace penstock::loadgen
