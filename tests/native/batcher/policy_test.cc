// Decide by table: every rule, and which rule wins.

#include "batcher/policy.h"

#include <gtest/gtest.h>

#include <ostream>
#include <string>

namespace penstock {
namespace {

constexpr int64_t kNow = 1'000'000;

struct Case {
  std::string name;
  BatchPolicy policy;
  Candidate candidate;
  Decision expected;
};

void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

Decision Closes(uint32_t rows, CloseReason reason) {
  return {.close = true, .rows = rows, .reason = reason};
}
Decision WaitsUntil(int64_t ns) { return {.wait_until_ns = ns}; }

BatchPolicy Policy(int64_t delay_ns) {
  BatchPolicy policy;
  policy.max_batch_size = 8;
  policy.max_queue_delay_ns = delay_ns;
  return policy;
}
Candidate Of(uint32_t rows) { return {.rows = rows, .oldest_ns = kNow}; }

std::vector<Case> Cases() {
  Candidate full = Of(8);
  full.is_full = true;
  Candidate full_below_max = Of(6);  // the next request has 3 rows
  full_below_max.is_full = true;
  Candidate preferred = Of(5);
  preferred.preferred_rows = 4;
  Candidate preferred_and_all = full;
  preferred_and_all.preferred_rows = 4;
  preferred_and_all.is_draining = preferred_and_all.other_key_waits = true;
  Candidate draining = Of(2);
  draining.is_draining = true;
  Candidate draining_empty;
  draining_empty.is_draining = true;
  Candidate shape = Of(2);
  shape.other_key_waits = true;
  Candidate full_and_shape = full;
  full_and_shape.other_key_waits = true;
  Candidate old = Of(2);
  old.oldest_ns = kNow - 100;
  Candidate older = Of(2);
  older.oldest_ns = kNow - 101;
  return {
      {"empty_waits_for_a_request", Policy(0), Candidate(), WaitsUntil(kNever)},
      {"empty_waits_even_with_a_delay", Policy(100), Candidate(), WaitsUntil(kNever)},
      {"empty_and_draining_waits", Policy(0), draining_empty, WaitsUntil(kNever)},
      {"lone_request_without_delay_runs", Policy(0), Of(1), Closes(1, CloseReason::kIdleInstance)},
      {"several_without_delay_run", Policy(0), Of(5), Closes(5, CloseReason::kIdleInstance)},
      {"full_runs_at_once", Policy(100), full, Closes(8, CloseReason::kFull)},
      {"full_below_max_runs_at_once", Policy(100), full_below_max, Closes(6, CloseReason::kFull)},
      {"full_without_delay_says_full", Policy(0), full, Closes(8, CloseReason::kFull)},
      {"preferred_runs_at_once", Policy(100), preferred, Closes(4, CloseReason::kPreferred)},
      {"preferred_wins_over_all", Policy(0), preferred_and_all, Closes(4, CloseReason::kPreferred)},
      {"draining_ends_the_delay", Policy(100), draining, Closes(2, CloseReason::kDrain)},
      {"other_shape_ends_the_delay", Policy(100), shape, Closes(2, CloseReason::kShapeChange)},
      {"full_wins_over_shape", Policy(100), full_and_shape, Closes(8, CloseReason::kFull)},
      {"within_the_delay_waits", Policy(100), Of(2), WaitsUntil(kNow + 100)},
      {"waits_from_the_oldest", Policy(150), old, WaitsUntil(kNow + 50)},
      {"delay_reached_runs", Policy(100), old, Closes(2, CloseReason::kDelay)},
      {"delay_passed_runs", Policy(100), older, Closes(2, CloseReason::kDelay)},
  };
}

class DecideTest : public testing::TestWithParam<Case> {};

TEST_P(DecideTest, Decides) {
  const Case& c = GetParam();
  const Decision decision = Decide(c.policy, c.candidate, kNow);
  EXPECT_EQ(decision.close, c.expected.close);
  if (c.expected.close) {
    EXPECT_EQ(decision.rows, c.expected.rows);
    EXPECT_EQ(CloseReasonName(decision.reason), CloseReasonName(c.expected.reason));
  } else {
    EXPECT_EQ(decision.wait_until_ns, c.expected.wait_until_ns);
  }
}

INSTANTIATE_TEST_SUITE_P(Table, DecideTest, testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST(PolicyTest, LongestDelay_DoesNotOverflow) {
  const Decision decision = Decide(Policy(kNever), Of(1), kNow);
  EXPECT_FALSE(decision.close);
  EXPECT_EQ(decision.wait_until_ns, kNever);
}

TEST(PolicyTest, EveryReason_HasItsName) {
  const std::vector<std::string> names = {"full",          "preferred",    "delay",
                                          "idle_instance", "shape_change", "drain"};
  ASSERT_EQ(names.size(), kCloseReasonCount);
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(CloseReasonName(static_cast<CloseReason>(i)), names[i]);
  }
}

}  // namespace
}  // namespace penstock
