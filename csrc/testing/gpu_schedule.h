// GpuSchedule: the dice of tests that try a thousand schedules on the fake GPU, each of its own seed,
// and the faults that these put somewhere.

#pragma once

#include <cstdint>
#include <functional>
#include <random>

#include "base/status.h"
#include "testing/fake_gpu.h"

namespace penstock {

#if defined(__SANITIZE_THREAD__)
inline constexpr int kGpuSchedules = 300;  // each is several times as slow
#else
inline constexpr int kGpuSchedules = 1000;
#endif

// Threading: thread-compatible.
struct GpuSchedule {
  explicit GpuSchedule(uint64_t seed) : random(seed) {}

  int Pick(int least, int greatest) {
    return std::uniform_int_distribution<int>(least, greatest)(random);
  }

  std::mt19937_64 random;
};

enum class GpuFault { kNone, kPlainCall, kStickyCall, kWork, kEngine, kNoMemory, kFaults };

inline GpuFault PickFault(GpuSchedule& schedule) {
  return static_cast<GpuFault>(schedule.Pick(0, static_cast<int>(GpuFault::kFaults) - 1));
}

// The nth call, copy, kernel or run of the engine (`fail_engine`) from now on will fail.
inline void InjectFault(FakeGpu& gpu, GpuFault fault, int nth,
                        const std::function<void(int)>& fail_engine) {
  switch (fault) {
    case GpuFault::kPlainCall:
      return gpu.FailCall("", nth, gpu::Error::kInvalidValue);
    case GpuFault::kStickyCall:
      return gpu.FailCall("", nth, gpu::Error::kLaunchFailure);
    case GpuFault::kNoMemory:
      return gpu.FailCall("", nth, gpu::Error::kMemoryAllocation);
    case GpuFault::kWork:
      return gpu.FaultWork(nth, gpu::Error::kIllegalAddress);
    case GpuFault::kEngine:
      return fail_engine(nth);
    default:
      return;
  }
}

// What a batch may end with when a fault was injected.
inline bool IsOfFault(StatusCode code) {
  return code == StatusCode::kInternal || code == StatusCode::kUnavailable ||
         code == StatusCode::kResourceExhausted;
}

}  // namespace penstock
