#include "transport/call_handle.h"

#include <utility>

namespace penstock {

template <typename Action>
void CallHandle::Do(Action action) {
  mailbox_->Post([self = shared_from_this(), action = std::move(action)]() mutable {
    if (self->call_ != nullptr) action(*self->call_);
  });
}

void CallHandle::Read() {
  Do([](Call& call) { call.Read(); });
}

void CallHandle::SendMetadata(Metadata metadata) {
  Do([metadata = std::move(metadata)](Call& call) { call.SendMetadata(metadata); });
}

void CallHandle::Write(Buffer message) {
  // A task is copyable, a buffer is not.
  Do([shared = std::make_shared<Buffer>(std::move(message))](Call& call) {
    call.Write(std::move(*shared));
  });
}

void CallHandle::End(Status status, Metadata metadata) {
  Do([status = std::move(status), metadata = std::move(metadata)](Call& call) {
    call.End(status, metadata);
  });
}

void CallHandle::Verified(Status status) {
  Do([status = std::move(status)](Call& call) { call.Verified(status); });
}

void CallEventQueue::Push(CallEvent event) {
  bool is_first = false;
  {
    MutexLock lock(mu_);
    is_first = events_.empty();
    events_.push_back(std::move(event));
  }
  if (is_first) event_.Set();
}

std::vector<CallEvent> CallEventQueue::Take() {
  event_.Clear();
  std::vector<CallEvent> taken;
  MutexLock lock(mu_);
  taken.swap(events_);
  return taken;
}

}  // namespace penstock
