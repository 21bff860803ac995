#include "base/clock.h"

#include <algorithm>
#include <ctime>

namespace penstock {
namespace {

constexpr int64_t kLongestWaitNs = int64_t{3600} * 1'000'000'000;

class SystemClock final : public Clock {
 public:
  int64_t NowNs() const override {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * int64_t{1'000'000'000} + now.tv_nsec;
  }

  void WaitUntil(CondVar& cv, Mutex& mu, int64_t deadline_ns) override REQUIRES(mu) {
    if (deadline_ns == kNever) {
      cv.Wait(mu);
      return;
    }
    // Waits may wake early: a far deadline is cut, lest the absolute time overflow.
    const int64_t left_ns = std::min(deadline_ns - NowNs(), kLongestWaitNs);
    if (left_ns > 0) cv.WaitFor(mu, left_ns);
  }
};

}  // namespace

int64_t UnixTimeMs() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * int64_t{1000} + now.tv_nsec / 1'000'000;
}

Clock& Clock::System() {
  static auto& clock = *new SystemClock();  // NOLINT: never destroyed, threads may outlive main
  return clock;
}

}  // namespace penstock
