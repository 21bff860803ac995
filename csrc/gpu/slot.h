// Slot: room for one batch on its way through a lane; SlotLease: the right to fill it or read it.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "gpu/device_engine.h"
#include "gpu/gpu_handles.h"
#include "tensor/buffer.h"

namespace penstock::gpu {

class Lane;

// Memory and events of one batch. Each tensor has room for max_rows() rows.
// Threading: of whoever has the lease; while a batch is in flight, of the device.
struct Slot {
  Lane* lane = nullptr;
  size_t index = 0;        // in its lane
  Buffer pinned;           // host memory: inputs, then outputs
  DeviceMemory device;     // the same on the device
  Bindings host_bindings;  // where the tensors lie in `pinned`
  Bindings bindings;       // and where they are computed on: in `device`, or there too
  OwnedEvent copied_in, computed, copied_out;
  std::vector<std::shared_ptr<const void>> held;  // Route::held, while a batch is in flight
};

// Slots that nobody has, of all lanes of a model, longest idle first, so that lanes take turns.
// Threading: thread-safe.
// Ownership: borrows the slots.
// Lifecycle: when AwaitAll returns after Close nobody is in Take any more.
// Blocking: Take, until a slot comes back or Close; AwaitAll, until all are back and nobody waits.
class FreeSlots {
 public:
  void Put(Slot* slot) EXCLUDES(mu_);
  Slot* TryTake() EXCLUDES(mu_);                   // null: none is free
  Result<Slot*> Take(Clock& clock) EXCLUDES(mu_);  // or what Close was given
  void Close(const Status& why) EXCLUDES(mu_);
  void AwaitAll(size_t count) EXCLUDES(mu_);  // REQUIRES: Close was called

 private:
  Mutex mu_;
  CondVar changed_;
  // Guarded by mu_.
  std::deque<Slot*> slots_ GUARDED_BY(mu_);
  size_t waiting_ GUARDED_BY(mu_) = 0;
  Status closed_ GUARDED_BY(mu_);
};

// Threading: thread-compatible; may be given up on another thread than it was taken on.
// Ownership: owns the slot's use; gives it back when it goes. Goes before the LaneGroup.
class SlotLease {
 public:
  SlotLease() = default;
  SlotLease(FreeSlots& home, Slot* slot) : home_(&home), slot_(slot) {}
  SlotLease(SlotLease&& other) noexcept
      : home_(other.home_), slot_(std::exchange(other.slot_, nullptr)) {}
  SlotLease& operator=(SlotLease&& other) noexcept {
    std::swap(home_, other.home_);
    std::swap(slot_, other.slot_);
    return *this;
  }
  ~SlotLease() {
    if (slot_ != nullptr) home_->Put(slot_);
  }

  explicit operator bool() const { return slot_ != nullptr; }
  Slot& slot() const { return *slot_; }
  // Host memory of a tensor, for max_rows() rows: written before Submit, read when it is done.
  uint8_t* input(size_t i) const { return static_cast<uint8_t*>(slot_->host_bindings.inputs[i]); }
  const uint8_t* output(size_t i) const {
    return static_cast<const uint8_t*>(slot_->host_bindings.outputs[i]);
  }
  // Leaves the slot to the caller.
  Slot* Release() { return std::exchange(slot_, nullptr); }

 private:
  FreeSlots* home_ = nullptr;
  Slot* slot_ = nullptr;
};

// Told once how a batch ended, with the lease of its slot: outputs may be read there when the
// status is OK, for as long as the lease is kept. It runs on the completion thread: it is quick,
// does not wait for a slot, and does not throw.
using BatchDone = std::function<void(const Status&, SlotLease)>;

}  // namespace penstock::gpu
