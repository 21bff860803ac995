#include "worker/restart_budget.h"

#include <gtest/gtest.h>

#include "base/clock.h"

namespace penstock {
namespace {

TEST(RestartBudgetTest, FirstEnd_RestartsAtOnceAndFurtherOnesBackOff) {
  RestartBudget budget({.max_restarts = 5, .window_ns = 300 * kNsPerS, .first_delay_ns = kNsPerS});
  EXPECT_EQ(budget.OnEnd(1000 * kNsPerS), 0);
  EXPECT_EQ(budget.OnEnd(1001 * kNsPerS), kNsPerS);
  EXPECT_EQ(budget.OnEnd(1003 * kNsPerS), 2 * kNsPerS);
  EXPECT_EQ(budget.OnEnd(1006 * kNsPerS), 4 * kNsPerS);
  EXPECT_EQ(budget.OnEnd(1011 * kNsPerS), 8 * kNsPerS);
  EXPECT_EQ(budget.OnEnd(1020 * kNsPerS), std::nullopt);
}

TEST(RestartBudgetTest, EndsOutsideOfTheWindow_AreForgotten) {
  RestartBudget budget({.max_restarts = 1, .window_ns = 10 * kNsPerS});
  EXPECT_EQ(budget.OnEnd(100 * kNsPerS), 0);
  EXPECT_EQ(budget.OnEnd(105 * kNsPerS), std::nullopt);
  EXPECT_EQ(budget.spent_until_ns(), 110 * kNsPerS);
  EXPECT_EQ(budget.OnEnd(111 * kNsPerS), 0);
}

TEST(RestartBudgetTest, Delay_HasAMaximum) {
  RestartBudget budget({.max_restarts = 100,
                        .window_ns = 1000 * kNsPerS,
                        .first_delay_ns = kNsPerS,
                        .max_delay_ns = 5 * kNsPerS});
  int64_t delay_ns = 0;
  for (int i = 0; i < 90; ++i) delay_ns = *budget.OnEnd(i);
  EXPECT_EQ(delay_ns, 5 * kNsPerS);
}

TEST(RestartBudgetTest, NoRestarts_IsNever) {
  RestartBudget budget({.max_restarts = 0});
  EXPECT_EQ(budget.OnEnd(kNsPerS), std::nullopt);
  EXPECT_EQ(budget.spent_until_ns(), kNever);
}

}  // namespace
}  // namespace penstock
