#include "gpu/registered_memory.h"

#include <iterator>
#include <string>
#include <string_view>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"

namespace penstock::gpu {
namespace {

constexpr std::string_view kWhat = "register host memory";

}  // namespace

std::shared_ptr<void> RegisteredMemory::Register(std::span<uint8_t> memory, int device,
                                                 DeviceHealth& health) {
  if (memory.empty()) return nullptr;
  Status status = health.fault();
  if (status.ok()) status = health.Check(state_->api.SetDevice(device), kWhat);
  if (status.ok()) {
    status = health.Check(state_->api.RegisterHost(memory.data(), memory.size()), kWhat);
  }
  MutexLock lock(state_->mu);
  if (!status.ok()) {
    if (!std::exchange(state_->has_logged, true)) {
      Log(LogLevel::kWarning, "gpu",
          StrCat(memory.size(),
                 " bytes cannot be registered, and are copied once more: ", status.message()));
    }
    return nullptr;
  }
  state_->ranges[reinterpret_cast<uintptr_t>(memory.data())] = memory.size();
  return {memory.data(),
          [state = state_, device, &health](void* data) { End(*state, data, device, health); }};
}

void RegisteredMemory::End(State& state, void* memory, int device, DeviceHealth& health) {
  {
    MutexLock lock(state.mu);
    state.ranges.erase(reinterpret_cast<uintptr_t>(memory));
  }
  if (health.is_faulted()) return;
  if (!health.Check(state.api.SetDevice(device), kWhat).ok()) return;
  static_cast<void>(health.Check(state.api.UnregisterHost(memory), kWhat));
}

bool RegisteredMemory::Contains(std::span<const uint8_t> bytes) const {
  const auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  MutexLock lock(state_->mu);
  const auto next = state_->ranges.upper_bound(begin);
  if (next == state_->ranges.begin()) return false;
  const auto& [base, size_bytes] = *std::prev(next);
  const size_t offset = begin - base;
  return offset <= size_bytes && bytes.size() <= size_bytes - offset;
}

}  // namespace penstock::gpu
