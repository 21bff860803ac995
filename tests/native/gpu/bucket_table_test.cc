#include "gpu/bucket_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <vector>

namespace penstock::gpu {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

BucketTable Make(const std::vector<uint32_t>& rows, bool takes_any_rows = true) {
  return *BucketTable::Create(rows, rows.back(), takes_any_rows);
}

// 1, 4 and 8 rows, with graphs.
BucketTable MakeMeasured(int64_t eager1, int64_t eager4, int64_t graph4) {
  BucketTable table = Make({1, 4, 8});
  table.bucket(0) = {1, true, 50, eager1};
  table.bucket(1) = {4, true, graph4, eager4};
  table.bucket(2) = {8, true, 900, 1000};
  return table;
}

TEST(BucketTableTest, DefaultRows_ArePowersOfTwoAndTheLargest) {
  EXPECT_THAT(BucketTable::DefaultRows(1), ElementsAre(1));
  EXPECT_THAT(BucketTable::DefaultRows(8), ElementsAre(1, 2, 4, 8));
  EXPECT_THAT(BucketTable::DefaultRows(12), ElementsAre(1, 2, 4, 8, 12));
  EXPECT_EQ(BucketTable::DefaultRows(UINT32_MAX).size(), 33U);
}

TEST(BucketTableTest, Create_RefusesRowsThatDoNotRiseToTheLargest) {
  for (const std::vector<uint32_t>& rows :
       {std::vector<uint32_t>{}, {0, 8}, {4, 4, 8}, {4, 2, 8}, {1, 4}, {1, 16}}) {
    const auto table = BucketTable::Create(rows, 8, true);
    ASSERT_FALSE(table.ok());
    EXPECT_EQ(table.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(table.status().message(), HasSubstr("batch size"));
  }
}

TEST(BucketTableTest, OwnSize_TakesItsGraphEvenUnmeasured) {
  BucketTable table = Make({1, 4});
  EXPECT_EQ(table.Choose(4), (RunPlan{4, std::nullopt}));
  table.bucket(1).has_graph = true;
  EXPECT_EQ(table.Choose(4), (RunPlan{4, 1}));
  EXPECT_EQ(table.Choose(1), (RunPlan{1, std::nullopt}));
}

TEST(BucketTableTest, SizeBetween_IsNotPaddedUnlessMeasured) {
  BucketTable table = Make({1, 4});
  table.bucket(1).has_graph = true;
  EXPECT_EQ(table.Choose(3), (RunPlan{3, std::nullopt}));
  table.bucket(1).graph_ns = 1;
  EXPECT_EQ(table.Choose(3), (RunPlan{3, std::nullopt})) << "its own time is not known";
}

TEST(BucketTableTest, SizeBetween_IsPaddedWhereTheGraphIsNoSlower) {
  // Without a graph 2 and 3 rows take 200 and 300 ns, on the line between 100 and 400.
  EXPECT_EQ(MakeMeasured(100, 400, 200).Choose(2), (RunPlan{4, 1}));
  EXPECT_EQ(MakeMeasured(100, 400, 201).Choose(2), (RunPlan{2, std::nullopt}));
  EXPECT_EQ(MakeMeasured(100, 400, 300).Choose(3), (RunPlan{4, 1}));
  EXPECT_EQ(MakeMeasured(100, 400, 301).Choose(3), (RunPlan{3, std::nullopt}));
}

TEST(BucketTableTest, SizeBelowTheFirst_IsComparedWithTheFirstWithoutGraph) {
  BucketTable table = Make({4, 8});
  table.bucket(0) = {4, true, 100, 100};
  EXPECT_EQ(table.Choose(1), (RunPlan{4, 0}));
  table.bucket(0) = {4, true, 101, 100};
  EXPECT_EQ(table.Choose(1), (RunPlan{1, std::nullopt}));
}

TEST(BucketTableTest, GraphThatIsMissing_NeverPads) {
  BucketTable table = MakeMeasured(100, 400, 1);
  table.bucket(1).has_graph = false;
  EXPECT_EQ(table.Choose(3), (RunPlan{3, std::nullopt}));
}

TEST(BucketTableTest, EngineOfFixedSizes_AlwaysPads) {
  BucketTable table = Make({2, 8}, /*takes_any_rows=*/false);
  EXPECT_EQ(table.Choose(1), (RunPlan{2, std::nullopt}));
  table.bucket(1).has_graph = true;
  EXPECT_EQ(table.Choose(3), (RunPlan{8, 1}));
  EXPECT_EQ(table.Choose(8), (RunPlan{8, 1}));
}

TEST(BucketTableTest, Changes_CostWhatTheFirstRunTakesLonger) {
  BucketTable table = MakeMeasured(100, 400, 200);
  EXPECT_EQ(table.ChangeNs(4), 0) << "not measured";
  table.bucket(1).first_ns = 700;
  table.bucket(2).first_ns = 900;
  EXPECT_EQ(table.ChangeNs(4), 300);
  EXPECT_EQ(table.ChangeNs(3), 300);
  EXPECT_EQ(table.ChangeNs(8), 0) << "it was quicker";
}

TEST(BucketTableTest, ChangesCost_IsMoreThanNoiseAtHalfOfTheSizes) {
  BucketTable table = Make({1, 2, 4, 8});
  EXPECT_FALSE(table.ChangesCost());
  for (size_t i = 0; i < 4; ++i) table.bucket(i).eager_ns = table.bucket(i).first_ns = 1000;
  EXPECT_FALSE(table.ChangesCost());
  table.bucket(0).first_ns = 9000;
  table.bucket(3).first_ns = 1050;
  EXPECT_FALSE(table.ChangesCost()) << "5 % may be noise, and one size chance";
  table.bucket(3).first_ns = 1051;
  EXPECT_TRUE(table.ChangesCost());
}

}  // namespace
}  // namespace penstock::gpu
