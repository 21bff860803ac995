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

struct SharedCase {
  std::string name;
  uint32_t max_background_rows;
  int64_t delay_ns;
  uint32_t rows;             // that others could make a batch of
  uint32_t background_rows;  // likewise
  Decision expected;
};

void PrintTo(const SharedCase& c, std::ostream* os) { *os << c.name; }

Decision Filled(uint32_t rows, uint32_t room) {
  return {.close = true, .rows = rows, .background_room = room};
}

std::vector<SharedCase> SharedCases() {
  return {
      {"nothing_waits", 0, 0, 0, 0, WaitsUntil(kNever)},
      {"others_alone_are_as_ever", 0, 0, 3, 0, Filled(3, 0)},
      {"background_joins_with_a_quarter_of_its_bound", 0, 0, 3, 6, Filled(3, 2)},
      {"background_joins_with_a_quarter_of_a_bound_that_is_set", 4, 0, 3, 6, Filled(3, 1)},
      {"background_joins_with_what_is_open_at_most", 0, 0, 7, 6, Filled(7, 1)},
      {"nothing_joins_where_a_quarter_is_no_row", 3, 0, 3, 6, Filled(3, 0)},
      {"nothing_joins_a_full_batch", 0, 0, 8, 6, Filled(8, 0)},
      {"background_runs_on_an_idle_instance", 0, 0, 0, 6, Closes(6, CloseReason::kBackground)},
      {"background_waits_for_no_delay", 0, 100, 0, 6, Closes(6, CloseReason::kBackground)},
      {"background_does_not_get_in_the_way_of_a_delay", 0, 100, 2, 6, WaitsUntil(kNow + 100)},
      {"background_runs_in_as_many_rows_as_it_has", 2, 0, 0, 2,
       Closes(2, CloseReason::kBackground)},
  };
}

class DecideSharedTest : public testing::TestWithParam<SharedCase> {};

TEST_P(DecideSharedTest, Decides) {
  const SharedCase& c = GetParam();
  BatchPolicy policy = Policy(c.delay_ns);
  policy.max_background_rows = c.max_background_rows;
  const Decision decision = DecideShared(policy, Of(c.rows), Of(c.background_rows), kNow);
  EXPECT_EQ(decision.close, c.expected.close);
  EXPECT_EQ(decision.rows, c.expected.rows);
  EXPECT_EQ(decision.background_room, c.expected.background_room);
  EXPECT_EQ(decision.wait_until_ns, c.expected.wait_until_ns);
  EXPECT_EQ(decision.reason == CloseReason::kBackground,
            c.expected.reason == CloseReason::kBackground);
}

INSTANTIATE_TEST_SUITE_P(Table, DecideSharedTest, testing::ValuesIn(SharedCases()),
                         [](const auto& info) { return info.param.name; });

TEST(PolicyTest, WithoutBatching_NothingJoins) {
  BatchPolicy policy = Policy(0);
  policy.combines_requests = false;
  EXPECT_EQ(DecideShared(policy, Of(1), Of(1), kNow).background_room, 0U);
}

TEST(PolicyTest, BackgroundRows_AreBoundedByTheBatch) {
  BatchPolicy policy = Policy(0);
  EXPECT_EQ(BackgroundRows(policy), 8U);
  policy.max_background_rows = 3;
  EXPECT_EQ(BackgroundRows(policy), 3U);
  policy.max_background_rows = 30;
  EXPECT_EQ(BackgroundRows(policy), 8U);
}

TEST(PolicyTest, JoiningRows_AreAQuarterOfThose) {
  BatchPolicy policy = Policy(0);
  EXPECT_EQ(JoiningRows(policy), 2U);
  policy.max_background_rows = 7;
  EXPECT_EQ(JoiningRows(policy), 1U);
  policy.max_background_rows = 1;
  EXPECT_EQ(JoiningRows(policy), 0U);
}

TEST(PolicyTest, BatchThatLeavesSomeBehind_IsJoinedByNobody) {
  Candidate next_is_too_large = Of(5);
  next_is_too_large.is_full = true;
  Candidate other_key_waits = Of(5);
  other_key_waits.other_key_waits = true;
  Candidate more_than_preferred = Of(5);
  more_than_preferred.preferred_rows = 4;
  for (const Candidate& candidate : {next_is_too_large, other_key_waits, more_than_preferred}) {
    const Decision decision = DecideShared(Policy(0), candidate, Of(1), kNow);
    EXPECT_TRUE(decision.close);
    EXPECT_EQ(decision.background_room, 0U);
  }
  EXPECT_EQ(DecideShared(Policy(0), Of(5), Of(1), kNow).background_room, 2U);
}

TEST(PolicyTest, PreferredSize_IsJoinedByNobody) {
  Candidate candidate = Of(4);
  candidate.preferred_rows = 4;
  EXPECT_EQ(DecideShared(Policy(0), candidate, Of(1), kNow).background_room, 0U);
}

TEST(PolicyTest, LongestDelay_DoesNotOverflow) {
  const Decision decision = Decide(Policy(kNever), Of(1), kNow);
  EXPECT_FALSE(decision.close);
  EXPECT_EQ(decision.wait_until_ns, kNever);
}

TEST(PolicyTest, EveryReason_HasItsName) {
  const std::vector<std::string> names = {"full",         "preferred", "delay",     "idle_instance",
                                          "shape_change", "drain",     "background"};
  ASSERT_EQ(names.size(), kCloseReasonCount);
  for (size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(CloseReasonName(static_cast<CloseReason>(i)), names[i]);
  }
}

}  // namespace
}  // namespace penstock
