#include "base/clock.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

TEST(SystemClockTest, Time_DoesNotGoBack) {
  const Clock& clock = Clock::System();
  const int64_t first_ns = clock.NowNs();
  EXPECT_GT(first_ns, 0);
  EXPECT_GE(clock.NowNs(), first_ns);
}

TEST(SystemClockTest, DeadlineInThePast_DoesNotWait) {
  Mutex mu;
  CondVar cv;
  MutexLock lock(mu);
  Clock::System().WaitUntil(cv, mu, 0);
  Clock::System().WaitUntil(cv, mu, Clock::System().NowNs());
}

TEST(SystemClockTest, Wait_EndsAtItsDeadline) {
  Mutex mu;
  CondVar cv;
  MutexLock lock(mu);
  const int64_t deadline_ns = Clock::System().NowNs() + 1'000'000;
  while (Clock::System().NowNs() < deadline_ns) {
    Clock::System().WaitUntil(cv, mu, deadline_ns);
  }
  EXPECT_GE(Clock::System().NowNs(), deadline_ns);
}

}  // namespace
}  // namespace penstock
