// Clock: the only source of time in the core, so that tests can hold time still.

#pragma once

#include <cstdint>
#include <limits>

#include "base/mutex.h"

namespace penstock {

inline constexpr int64_t kNsPerMs = 1'000'000;
inline constexpr int64_t kNsPerS = 1'000'000'000;

// "Never": the deadline of a request that has none.
inline constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

// Monotonic time in nanoseconds since an arbitrary origin (CLOCK_MONOTONIC for the system clock, so
// Python's time.monotonic_ns() is on the same scale).
// Threading: thread-safe.
class Clock {
 public:
  virtual ~Clock() = default;

  virtual int64_t NowNs() const = 0;

  // Waits on `cv` until it is notified or until this clock reaches `deadline_ns` (kNever = no
  // deadline). May wake spuriously.
  // Blocking: yes; releases `mu` meanwhile.
  virtual void WaitUntil(CondVar& cv, Mutex& mu, int64_t deadline_ns) REQUIRES(mu) = 0;

  // The process-wide system clock; never destroyed.
  static Clock& System();
};

// The wall clock, for people: milliseconds of Unix time.
int64_t UnixTimeMs();

}  // namespace penstock
