// CallHandle: a call as another thread holds it, and the events that tell that thread of calls.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/event_fd.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engine/access.h"
#include "transport/auth_context.h"
#include "transport/call.h"
#include "transport/mailbox.h"
#include "transport/request_head.h"

namespace penstock {

// Threading: thread-safe: each method has the I/O thread do it, and nothing once the call is over.
// Ownership: shared. Borrows the call, on its I/O thread and until it is over.
class CallHandle : public std::enable_shared_from_this<CallHandle> {
 public:
  struct Facts {
    std::string path;
    Metadata metadata;  // names in lower case; values of "-bin" names are bytes
    std::string peer;
    std::string connection;                           // its name, see Connection
    std::shared_ptr<const AuthContext> auth_context;  // null: plain text
    int64_t deadline_ns = kNever;
  };

  CallHandle(Facts facts, std::shared_ptr<const Caller> caller, std::shared_ptr<Mailbox> mailbox,
             Call* call)
      : facts_(std::move(facts)),
        caller_(std::move(caller)),
        mailbox_(std::move(mailbox)),
        call_(call) {}

  const Facts& facts() const { return facts_; }
  // Whose token is to be verified; null on calls of the Python lane.
  const std::shared_ptr<const Caller>& caller() const { return caller_; }

  void Read();
  void SendMetadata(Metadata metadata);
  void Write(Buffer message);
  void End(Status status, Metadata metadata);
  // Why the caller's token could not be verified; OK: the core decides by what it has been told.
  void Verified(Status status);

  // On the I/O thread: the call is over.
  void Forget() { call_ = nullptr; }

 private:
  template <typename Action>
  void Do(Action action);

  const Facts facts_;
  const std::shared_ptr<const Caller> caller_;
  const std::shared_ptr<Mailbox> mailbox_;
  Call* call_;  // on the I/O thread only; null once it is over
};

// What happened to a call.
struct CallEvent {
  enum class Kind : uint8_t {
    kStarted = 0,
    kMessage = 1,     // `message`; answers Read
    kHalfClosed = 2,  // the client sends no more; answers Read
    kWritten = 3,     // the message given to Write is on its way; another may be written
    kClosed = 4,      // `end`; nothing follows
    kVerify = 5,      // the caller's token is to be verified, see CallHandle::caller
  };

  std::shared_ptr<CallHandle> call;
  Kind kind = Kind::kStarted;
  MessageBytes message{};
  CallEnd end = CallEnd::kFinished;
};

// Carries events from I/O threads to one event loop.
// Threading: Push on any thread, Take on the loop's.
// Ownership: owns the eventfd. Shared, as it outlives whoever ends first.
class CallEventQueue {
 public:
  CallEventQueue() = default;
  CallEventQueue(const CallEventQueue&) = delete;
  CallEventQueue& operator=(const CallEventQueue&) = delete;

  int fd() const { return event_.fd(); }
  void Push(CallEvent event);
  // Makes fd() readable without an event.
  void Signal() { event_.Set(); }
  std::vector<CallEvent> Take();

 private:
  const EventFd event_;

  Mutex mu_;
  // Guarded by mu_.
  std::vector<CallEvent> events_ GUARDED_BY(mu_);
};

}  // namespace penstock
