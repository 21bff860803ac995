#include "worker/restart_budget.h"

#include <gtest/gtest.h>

namespace penstock {
namespace {

constexpr int64_t kS = 1'000'000'000;

TEST(RestartBudgetTest, FirstEnd_RestartsAtOnceAndFurtherOnesBackOff) {
  RestartBudget budget({.max_restarts = 5, .window_ns = 300 * kS, .first_delay_ns = kS});
  EXPECT_EQ(budget.OnEnd(1000 * kS), 0);
  EXPECT_EQ(budget.OnEnd(1001 * kS), kS);
  EXPECT_EQ(budget.OnEnd(1003 * kS), 2 * kS);
  EXPECT_EQ(budget.OnEnd(1006 * kS), 4 * kS);
  EXPECT_EQ(budget.OnEnd(1011 * kS), 8 * kS);
  EXPECT_EQ(budget.OnEnd(1020 * kS), std::nullopt);
}

TEST(RestartBudgetTest, EndsOutsideOfTheWindow_AreForgotten) {
  RestartBudget budget({.max_restarts = 1, .window_ns = 10 * kS});
  EXPECT_EQ(budget.OnEnd(100 * kS), 0);
  EXPECT_EQ(budget.OnEnd(105 * kS), std::nullopt);
  EXPECT_EQ(budget.OnEnd(111 * kS), 0);
}

TEST(RestartBudgetTest, Delay_HasAMaximum) {
  RestartBudget budget(
      {.max_restarts = 100, .window_ns = 1000 * kS, .first_delay_ns = kS, .max_delay_ns = 5 * kS});
  int64_t delay_ns = 0;
  for (int i = 0; i < 90; ++i) delay_ns = *budget.OnEnd(i);
  EXPECT_EQ(delay_ns, 5 * kS);
}

TEST(RestartBudgetTest, NoRestarts_IsNever) {
  RestartBudget budget({.max_restarts = 0});
  EXPECT_EQ(budget.OnEnd(kS), std::nullopt);
}

}  // namespace
}  // namespace penstock
