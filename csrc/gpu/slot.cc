#include "gpu/slot.h"

namespace penstock::gpu {

void FreeSlots::Put(Slot* slot) {
  MutexLock lock(mu_);
  slots_.push_back(slot);
  changed_.NotifyAll();
}

Slot* FreeSlots::TryTake() {
  MutexLock lock(mu_);
  if (slots_.empty() || !closed_.ok()) return nullptr;
  Slot* slot = slots_.front();
  slots_.pop_front();
  return slot;
}

Result<Slot*> FreeSlots::Take(Clock& clock) {
  MutexLock lock(mu_);
  while (slots_.empty() && closed_.ok()) {
    ++waiting_;
    clock.WaitUntil(changed_, mu_, kNever);
    --waiting_;
  }
  if (!closed_.ok()) {
    changed_.NotifyAll();  // AwaitAll: one fewer is waiting
    return closed_;
  }
  Slot* slot = slots_.front();
  slots_.pop_front();
  return slot;
}

void FreeSlots::Close(const Status& why) {
  MutexLock lock(mu_);
  if (closed_.ok()) closed_ = why;
  changed_.NotifyAll();
}

void FreeSlots::AwaitAll(size_t count) {
  MutexLock lock(mu_);
  while (slots_.size() < count || waiting_ > 0) changed_.Wait(mu_);
}

}  // namespace penstock::gpu
