// What a plan's tensors and profiles say of rows, batch sizes and buckets.
#include "backends/tensorrt/plan_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace penstock::tensorrt {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ProfileRange Range(const Shape& least, const Shape& likely, const Shape& greatest) {
  return {least, likely, greatest};
}

PlanTensor Input(const std::string& name, const Shape& dims, std::vector<ProfileRange> profiles) {
  return {.name = name,
          .dtype = DataType::kFp32,
          .is_input = true,
          .dims = dims,
          .profiles = std::move(profiles)};
}

PlanTensor Output(const std::string& name, const Shape& dims) {
  return {.name = name, .dtype = DataType::kFp32, .dims = dims};
}

// Batches of 1, 2 to 4, and 5 to 16 rows of 8.
std::vector<PlanTensor> ThreeProfiles() {
  return {Input("x", {-1, 8},
                {Range({5, 8}, {16, 8}, {16, 8}), Range({1, 8}, {1, 8}, {1, 8}),
                 Range({2, 8}, {3, 8}, {4, 8})}),
          Output("y", {-1, 2})};
}

PlanLayout Layout(const std::vector<PlanTensor>& tensors, size_t profiles, bool batches = true) {
  auto layout = PlanLayout::Create("model 'm' version 1", tensors, profiles, batches);
  EXPECT_TRUE(layout.ok()) << layout.status().ToString();
  return *layout;
}

std::string Refusal(const std::vector<PlanTensor>& tensors, size_t profiles, StatusCode code) {
  const Status status = PlanLayout::Create("model 'm' version 1", tensors, profiles, true).status();
  EXPECT_EQ(status.code(), code) << status.ToString();
  EXPECT_THAT(std::string(status.message()), HasSubstr("model 'm' version 1: "));
  return std::string(status.message());
}

TEST(PlanLayoutTest, EachNumberOfRows_HasTheProfileThatWasMadeForTheFewest) {
  const PlanLayout layout = Layout(ThreeProfiles(), 3);
  EXPECT_TRUE(layout.has_rows());
  EXPECT_FALSE(layout.has_open_shapes());
  EXPECT_TRUE(layout.takes_any_rows());
  EXPECT_EQ(layout.max_rows(), 16U);
  EXPECT_EQ(layout.ProfileOfRows(1), 1U);
  EXPECT_EQ(layout.ProfileOfRows(4), 2U);
  EXPECT_EQ(layout.ProfileOfRows(5), 0U);
  EXPECT_EQ(layout.ProfileOfRows(17), std::nullopt);
}

TEST(PlanLayoutTest, Buckets_ArePowersOfTwoAndWhatProfilesWereMadeFor) {
  const PlanLayout layout = Layout(ThreeProfiles(), 3);
  EXPECT_THAT(*layout.Buckets({}), ElementsAre(1, 2, 3, 4, 8, 16));
  EXPECT_THAT(*layout.Buckets({2, 8}), ElementsAre(2, 8, 16)) << "the largest is always one";
  EXPECT_EQ(layout.Buckets({17}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(layout.Buckets({0}).status().code(), StatusCode::kInvalidArgument);
}

TEST(PlanLayoutTest, RowsThatNoProfileTakes_ArePadded) {
  const PlanLayout layout =
      Layout({Input("x", {-1, 8}, {Range({4, 8}, {4, 8}, {8, 8})}), Output("y", {-1, 2})}, 1);
  EXPECT_FALSE(layout.takes_any_rows());
  EXPECT_THAT(*layout.Buckets({}), ElementsAre(4, 8));
}

TEST(PlanLayoutTest, FixedShapes_AreOneRow) {
  const PlanLayout layout = Layout({Input("x", {4, 8}, {}), Output("y", {4, 2})}, 1);
  EXPECT_FALSE(layout.has_rows());
  EXPECT_EQ(layout.max_rows(), 1U);
  EXPECT_THAT(layout.ShapesOf(1), ElementsAre(Shape{4, 8}));
  EXPECT_THAT(*layout.Buckets({}), ElementsAre(1));
}

TEST(PlanLayoutTest, OutputWithoutRows_MakesTheFirstDimensionOneLikeAnyOther) {
  const PlanLayout layout =
      Layout({Input("x", {-1, 8}, {Range({1, 8}, {4, 8}, {8, 8})}), Output("sum", {1})}, 1);
  EXPECT_FALSE(layout.has_rows());
  EXPECT_TRUE(layout.has_open_shapes());
}

TEST(PlanLayoutTest, ModelThatDoesNotBatch_HasDataInItsFirstDimension) {
  const PlanLayout layout =
      Layout({Input("text", {-1}, {Range({1}, {8}, {32})}),
              Input("query", {-1}, {Range({1}, {2}, {4})}), Output("found", {-1})},
             1, /*batches=*/false);
  EXPECT_FALSE(layout.has_rows());
  EXPECT_TRUE(layout.has_open_shapes());
  EXPECT_EQ(layout.max_rows(), 1U);
  EXPECT_THAT(*layout.Buckets({}), ElementsAre(1));
  EXPECT_EQ(layout.ProfileOf(std::vector{Shape{32}, Shape{4}}), 0U);
  EXPECT_EQ(layout.ProfileOf(std::vector{Shape{4}, Shape{5}}), std::nullopt);
  EXPECT_THAT(layout.GreatestShapes(0), ElementsAre(Shape{32}, Shape{4}));
}

TEST(PlanLayoutTest, MostRows_AreThoseOfTheGreatestProfile) {
  EXPECT_EQ(Layout(ThreeProfiles(), 3).signature().most_rows, 16U);
  const std::vector<ProfileRange> up_to_8 = {Range({1, 8}, {4, 8}, {8, 8})};
  EXPECT_EQ(Layout({Input("x", {-1, 8}, up_to_8), Input("z", {-1}, {Range({1}, {4}, {6})}),
                    Output("y", {-1, 2})},
                   1)
                .signature()
                .most_rows,
            6U)
      << "every input has to fit";
  EXPECT_EQ(Layout({Input("x", {-1, 8}, up_to_8), Output("y", {-1, 2}), Output("loss", {1})}, 1)
                .signature()
                .most_rows,
            8U)
      << "the loss need not be served";
}

TEST(PlanLayoutTest, MostRows_AreNotSaidWhereNoDimensionIsRows) {
  EXPECT_EQ(Layout(ThreeProfiles(), 3, /*batches=*/false).signature().most_rows, std::nullopt);
  EXPECT_EQ(Layout({Input("x", {4, 8}, {}), Output("y", {4, 2})}, 1).signature().most_rows,
            std::nullopt);
}

TEST(PlanLayoutTest, OpenShapes_AreMatchedWhole) {
  const PlanLayout layout = Layout(
      {Input("x", {-1, -1}, {Range({1, 1}, {8, 64}, {8, 64}), Range({1, 65}, {2, 512}, {2, 512})}),
       Output("y", {-1, -1})},
      2);
  EXPECT_TRUE(layout.has_open_shapes());
  const auto profile = [&](const Shape& shape) { return layout.ProfileOf(std::vector{shape}); };
  EXPECT_EQ(profile({8, 64}), 0U);
  EXPECT_EQ(profile({2, 100}), 1U);
  EXPECT_EQ(profile({3, 100}), std::nullopt);
  EXPECT_THAT(layout.GreatestShapes(1), ElementsAre(Shape{2, 512}));
  const Status why = layout.WhyNoProfile(std::vector{Shape{3, 100}});
  EXPECT_THAT(std::string(why.message()),
              HasSubstr("got 'x' [3,100], expected 'x' [1,1] to [8,64]; or 'x' [1,65] to [2,512]"));
}

TEST(PlanLayoutTest, TensorThatRequestsCannotHave_IsRefusedByName) {
  PlanTensor odd = Output("q", {-1, 2});
  odd.dtype = DataType::kInvalid;
  odd.dtype_name = "FP8";
  auto tensors = ThreeProfiles();
  tensors.push_back(odd);
  EXPECT_THAT(Refusal(tensors, 3, StatusCode::kUnimplemented),
              HasSubstr("output 'q' is of TensorRT's type FP8"));
  tensors.back() = Output("q", {-1, 2});
  tensors.back().is_read_by_host = true;
  EXPECT_THAT(Refusal(tensors, 3, StatusCode::kUnimplemented),
              HasSubstr("'q' is read by the host"));
  tensors.back() = Output("q", {-1, 2});
  tensors.back().is_linear = false;
  EXPECT_THAT(Refusal(tensors, 3, StatusCode::kUnimplemented), HasSubstr("'q' has a layout"));
  tensors.back() = Output("q", {-1, 2});
  tensors.back().aliased_input = "x";
  EXPECT_THAT(Refusal(tensors, 3, StatusCode::kUnimplemented),
              HasSubstr("output 'q' has to lie in the memory of input 'x'"));
  tensors = ThreeProfiles();
  tensors[0].is_read_by_host = true;
  EXPECT_THAT(Refusal(tensors, 3, StatusCode::kUnimplemented),
              HasSubstr("input 'x' is read by the host"));
}

TEST(PlanLayoutTest, ProfilesThatDoNotFit_AreRefused) {
  const auto refusal = [](std::vector<ProfileRange> ranges, size_t profiles) {
    return Refusal({Input("x", {-1, 8}, std::move(ranges)), Output("y", {-1, 2})}, profiles,
                   StatusCode::kInvalidArgument);
  };
  EXPECT_THAT(refusal({}, 1), HasSubstr("input 'x' has 0 profiles, expected 1"));
  EXPECT_THAT(refusal({Range({2, 8}, {1, 8}, {4, 8})}, 1), HasSubstr("profile 0 of input 'x'"));
  EXPECT_THAT(refusal({Range({1, 7}, {1, 8}, {4, 8})}, 1),
              HasSubstr("does not fit its shape [-1,8]"));
  EXPECT_THAT(refusal({Range({1}, {1}, {4})}, 1), HasSubstr("does not fit its shape"));
  EXPECT_THAT(refusal({Range({0, 8}, {0, 8}, {0, 8})}, 1), HasSubstr("takes 1 to 0 rows"));
  EXPECT_THAT(Refusal({Input("x", {-1, 8}, {Range({1, 8}, {1, 8}, {2, 8})}),
                       Input("z", {-1, 8}, {Range({3, 8}, {3, 8}, {4, 8})}), Output("y", {-1, 2})},
                      1, StatusCode::kInvalidArgument),
              HasSubstr("takes 3 to 2 rows"));
  EXPECT_THAT(Refusal({Input("x", {4}, {})}, 1, StatusCode::kInvalidArgument),
              HasSubstr("the plan has no output"));
}

}  // namespace
}  // namespace penstock::tensorrt
