// RegisteredMemory: host memory of others that the devices read by themselves while it is registered.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>

#include "base/mutex.h"
#include "gpu/device_health.h"
#include "gpu/gpu_api.h"

namespace penstock::gpu {

// Threading: thread-safe.
// Ownership: owns the registrations, not the memory. Borrows the Api. What Register gives, and the
// health that it was given, may be used until the Api goes.
// Blocking: Register and the end of what it gives, for as long as pinning takes.
class RegisteredMemory {
 public:
  explicit RegisteredMemory(Api& api) : state_(std::make_shared<State>(api)) {}

  // Registers `memory` by way of a device until what is returned goes; no batch may use it any
  // more then. On a lost device it is left to the end of the process. Null where the driver does
  // not take it (what may be locked is limited, and memory is registered once): the log says why,
  // the first time.
  std::shared_ptr<void> Register(std::span<uint8_t> memory, int device, DeviceHealth& health);

  // Whether all of these bytes are in one registration.
  bool Contains(std::span<const uint8_t> bytes) const;

 private:
  struct State {
    explicit State(Api& api) : api(api) {}

    Api& api;
    Mutex mu;
    // Guarded by mu.
    std::map<uintptr_t, size_t> ranges GUARDED_BY(mu);  // bytes, by where they begin
    bool has_logged GUARDED_BY(mu) = false;
  };

  static void End(State& state, void* memory, int device, DeviceHealth& health);

  const std::shared_ptr<State> state_;  // shared with what was given
};

}  // namespace penstock::gpu
