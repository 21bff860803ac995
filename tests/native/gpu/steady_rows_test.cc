// SteadyRows: when a size is left, and what that costs beside what one who knows all batches would pay.
#include "gpu/steady_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <set>
#include <vector>

namespace penstock::gpu {
namespace {

using ::testing::ElementsAre;

// Powers of two up to `most`, of which a run takes `run_ns`, a row more `row_ns`, and a change
// `change_ns`.
struct Costs {
  uint32_t most = 64;
  int64_t run_ns = 0, row_ns = 10, change_ns = 400;
};

BucketTable MakeCosting(const Costs& costs) {
  auto table = *BucketTable::Create(BucketTable::DefaultRows(costs.most), costs.most, true);
  for (size_t i = 0; i < table.buckets().size(); ++i) {
    const int64_t eager_ns = costs.run_ns + table.buckets()[i].rows * costs.row_ns;
    table.bucket(i).eager_ns = eager_ns;
    table.bucket(i).first_ns = eager_ns + costs.change_ns;
  }
  return table;
}

std::vector<uint32_t> SizesOf(SteadyRows& steady, const std::vector<uint32_t>& batches) {
  std::vector<uint32_t> sizes;
  sizes.reserve(batches.size());
  for (const uint32_t rows : batches) sizes.push_back(steady.Choose(rows));
  return sizes;
}

TEST(SteadyRowsTest, ChangesThatCostNothing_AreMadeForEachBatch) {
  const BucketTable table = MakeCosting({.change_ns = 0});
  SteadyRows steady(table);
  EXPECT_THAT(SizesOf(steady, {3, 64, 1, 33}), ElementsAre(3, 64, 1, 33));
}

TEST(SteadyRowsTest, LargerBatch_ChangesAtOnceToItsBucket) {
  const BucketTable table = MakeCosting({});
  SteadyRows steady(table);
  EXPECT_THAT(SizesOf(steady, {3, 4, 5, 6, 7, 8, 9}), ElementsAre(4, 4, 8, 8, 8, 8, 16));
}

TEST(SteadyRowsTest, LargerBatch_ThatItsBucketWouldCostMoreThanChanges_RunsAsItIs) {
  const BucketTable table = MakeCosting({.row_ns = 100, .change_ns = 1000});
  SteadyRows steady(table);
  // 31 rows more are 3100 ns, there and back 2000.
  EXPECT_THAT(SizesOf(steady, {33, 60}), ElementsAre(33, 64));
}

TEST(SteadyRowsTest, SmallerBatches_ChangeWhenTheyHaveCostAChangeThereAndBack) {
  const BucketTable table = MakeCosting({});
  SteadyRows steady(table);
  EXPECT_EQ(steady.Choose(24), 32U);
  // 240 ns each: 720 after three, 960 after four.
  EXPECT_THAT(SizesOf(steady, {8, 8, 8, 8, 8}), ElementsAre(32, 32, 32, 8, 8));
}

TEST(SteadyRowsTest, AlternatingSizes_StayAtTheLarger) {
  const BucketTable table = MakeCosting({});
  SteadyRows steady(table);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(steady.Choose(64), 64U);
    EXPECT_EQ(steady.Choose(1), 64U);
  }
}

TEST(SteadyRowsTest, SizesThatAllFitASmallerOne_ChangeToTheLargestOfThem) {
  const BucketTable table = MakeCosting({});
  SteadyRows steady(table);
  EXPECT_EQ(steady.Choose(64), 64U);
  for (int i = 0; i < 100; ++i) {
    for (const uint32_t rows : {1, 31, 7}) steady.Choose(rows);
  }
  EXPECT_EQ(steady.size(), 31U);
}

TEST(SteadyRowsTest, OneSizeBetweenBuckets_IsRunAsItIsInTheEnd) {
  const BucketTable table = MakeCosting({});
  SteadyRows steady(table);
  EXPECT_EQ(steady.Choose(33), 64U);
  for (int i = 0; i < 3; ++i) steady.Choose(33);
  EXPECT_EQ(steady.size(), 33U);
  // Also one that is little smaller than what was run long.
  for (int i = 0; i < 100; ++i) steady.Choose(32);
  EXPECT_EQ(steady.size(), 32U);
}

TEST(SteadyRowsTest, FailedRun_BeginsAnew) {
  const BucketTable table = MakeCosting({});
  SteadyRows steady(table);
  steady.Choose(64);
  steady.Forget();
  EXPECT_EQ(steady.size(), 0U);
  EXPECT_EQ(steady.Choose(2), 2U);
}

TEST(SteadyRowsTest, TimesThatDoNotRise_ChangeNothing) {
  BucketTable table = MakeCosting({.most = 8});
  for (size_t i = 0; i < table.buckets().size(); ++i) {
    table.bucket(i).eager_ns = 1000 - static_cast<int64_t>(i);
    table.bucket(i).first_ns = 2000;
  }
  SteadyRows steady(table);
  steady.Choose(8);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(steady.Choose(1), 8U);
}

TEST(SteadyRowsTest, LargestTable_IsChosenFrom) {
  const BucketTable table = MakeCosting({.most = UINT32_MAX, .row_ns = 1});
  SteadyRows steady(table);
  EXPECT_EQ(steady.Choose(UINT32_MAX), UINT32_MAX);
  EXPECT_EQ(steady.Choose(5), 5U);
}

// Of rows that nobody reads and of changes, beside the batches' own times.
int64_t CostOf(const BucketTable& table, const std::vector<uint32_t>& batches) {
  SteadyRows steady(table);
  int64_t cost_ns = 0;
  uint32_t before = 0;
  for (const uint32_t rows : batches) {
    const uint32_t size = steady.Choose(rows);
    EXPECT_GE(size, rows);
    cost_ns += *table.EagerNs(size) - *table.EagerNs(rows);
    if (size != before) cost_ns += table.ChangeNs(size);
    before = size;
  }
  return cost_ns;
}

// The least that it can be, the batches known: what the cheapest way to end at each size costs.
int64_t LeastCostOf(const BucketTable& table, const std::vector<uint32_t>& batches) {
  std::set<uint32_t> sizes(batches.begin(), batches.end());
  for (const Bucket& bucket : table.buckets()) sizes.insert(bucket.rows);
  constexpr int64_t kNoWay = std::numeric_limits<int64_t>::max() / 2;
  std::vector<int64_t> costs(sizes.size(), kNoWay);
  int64_t least = 0;
  for (const uint32_t rows : batches) {
    auto cost = costs.begin();
    for (const uint32_t size : sizes) {
      const int64_t wasted_ns = *table.EagerNs(size) - *table.EagerNs(rows);
      *cost = size < rows ? kNoWay : std::min(*cost, least + table.ChangeNs(size)) + wasted_ns;
      ++cost;
    }
    least = *std::min_element(costs.begin(), costs.end());
  }
  return least;
}

int64_t WorkOf(const BucketTable& table, const std::vector<uint32_t>& batches) {
  int64_t work_ns = 0;
  for (const uint32_t rows : batches) work_ns += *table.EagerNs(rows);
  return work_ns;
}

Costs PickCosts(std::mt19937& random) {
  const auto pick = [&](std::initializer_list<int64_t> from) {
    return from.begin()[random() % from.size()];
  };
  return {
      .run_ns = pick({0, 50, 500}), .row_ns = pick({10, 30}), .change_ns = pick({100, 1000, 4000})};
}

// Batches of these sizes, of each several one after another.
std::vector<uint32_t> PickBatches(std::mt19937& random, const std::vector<uint32_t>& sizes) {
  constexpr size_t kRepeats[] = {1, 1, 2, 3, 10, 30};
  std::vector<uint32_t> batches;
  while (batches.size() < 200) {
    batches.insert(batches.end(), kRepeats[random() % 6], sizes[random() % sizes.size()]);
  }
  return batches;
}

TEST(SteadyRowsTest, TwoSizes_CostAtMostTwiceTheLeast) {
  std::mt19937 random(1);
  for (int i = 0; i < 200; ++i) {
    const Costs costs = PickCosts(random);
    const BucketTable table = MakeCosting(costs);
    if (!table.ChangesCost()) continue;
    const uint32_t large = 2U << (random() % 6);
    const auto batches = PickBatches(random, {large, large >> (1 + random() % 6) | 1});
    EXPECT_LE(CostOf(table, batches), 2 * LeastCostOf(table, batches) + 2 * costs.change_ns) << i;
  }
}

// A large batch right after each change to the smaller size, again and again.
TEST(SteadyRowsTest, WorstOfTwoSizes_CostsTwiceTheLeast) {
  const BucketTable table = MakeCosting({.row_ns = 1, .change_ns = 3100});
  std::vector<uint32_t> batches;
  for (int round = 0; round < 50; ++round) {
    batches.push_back(64);
    batches.insert(batches.end(), 99, 1);  // 63 ns each: the last one is run as it is
  }
  const int64_t least_ns = LeastCostOf(table, batches);
  EXPECT_LE(CostOf(table, batches), 2 * least_ns);
  EXPECT_GE(CostOf(table, batches), least_ns * 19 / 10) << "no longer the worst";
}

TEST(SteadyRowsTest, AnySizes_TakeAtMostTwiceTheLeastTime) {
  std::mt19937 random(2);
  for (int i = 0; i < 100; ++i) {
    const Costs costs = PickCosts(random);
    const BucketTable table = MakeCosting(costs);
    if (!table.ChangesCost()) continue;
    std::vector<uint32_t> sizes;
    for (size_t n = 2 + random() % 20; n > 0; --n) sizes.push_back(1 + random() % 64);
    const auto batches = PickBatches(random, sizes);
    const int64_t cost_ns = CostOf(table, batches);
    const int64_t least_ns = LeastCostOf(table, batches);
    const int64_t work_ns = WorkOf(table, batches);
    EXPECT_LE(work_ns + cost_ns, 2 * (work_ns + least_ns) + 2 * costs.change_ns) << i;
    EXPECT_LE(cost_ns, 4 * least_ns + 2 * costs.change_ns) << i;
  }
}

}  // namespace
}  // namespace penstock::gpu
