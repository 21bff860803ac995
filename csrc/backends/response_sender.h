// ResponseSender: what a backend that answers requests one by one answers one with.

#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "base/status.h"

namespace penstock {

struct BatchOutput;  // backend.h

// Takes the responses to one request of a model that answers its requests one by one: none, one or
// many of them, during ExecuteRequests or after it, in any order among the requests.
// Threading: thread-safe.
// Ownership: shared by the engine and whoever answers. Dropped without Finish it ends its request
// INTERNAL.
// Lifecycle: Send* -> Finish or SendLast.
// Blocking: never, nor do callbacks that it is given run under a lock of its caller.
class ResponseSender {
 public:
  virtual ~ResponseSender() = default;

  // Sends one response: its outputs in any order, of the request's own rows (batch dimension
  // included where the model has one). Not OK: nothing was sent, and the answerer had better end:
  // CANCELLED, the client has gone; FAILED_PRECONDITION, after Finish; INTERNAL naming the output,
  // where it does not fit the model's specification: the request has then been failed with it.
  // Takes what it is given whatever room() says: who ignores that is bounded by an error,
  // RESOURCE_EXHAUSTED, at some multiple of it.
  virtual Status Send(std::vector<BatchOutput> outputs) = 0;
  // The same, and ends the request OK: the response itself says that it is the last, which after
  // Finish(OK) only a client learns that asked for an empty one behind it.
  virtual Status SendLast(std::vector<BatchOutput> outputs) = 0;
  // Ends the request; only the first call counts. A model that is not decoupled must have sent
  // exactly one response where `status` is OK.
  virtual void Finish(const Status& status) = 0;

  // True once the client has gone or the request was failed: nothing is sent any more.
  virtual bool is_cancelled() const = 0;
  // How many more responses may be sent before the client has taken some of those before.
  virtual size_t room() const = 0;
  // Has `on_room` called once, on any thread, as soon as room() > 0 or is_cancelled(): at once where
  // that is so already. Replaces one that was not called yet. Called by a transport, which waits:
  // it is quick, and never throws.
  virtual void NotifyRoom(std::function<void()> on_room) = 0;
  // The same for is_cancelled() alone, for who waits for something else than room. Dropped at
  // Finish.
  virtual void NotifyCancelled(std::function<void()> on_cancelled) = 0;
};

}  // namespace penstock
