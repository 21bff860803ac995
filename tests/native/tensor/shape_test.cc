#include "tensor/shape.h"

#include <gtest/gtest.h>

#include <limits>

namespace penstock {
namespace {

TEST(ShapeTest, PrintsAsThePublicServersDo) {
  EXPECT_EQ(Shape().ToString(), "[]");
  EXPECT_EQ((Shape{-1}).ToString(), "[-1]");
  EXPECT_EQ((Shape{1, 64}).ToString(), "[1,64]");
}

TEST(ShapeTest, Equality_LooksAtTheDimensionsInUseOnly) {
  Shape a{1, 2};
  a.Append(3);
  Shape b{9, 9, 9, 9};
  b.Clear();
  EXPECT_FALSE(a == b);
  for (const int64_t dim : a) b.Append(dim);
  EXPECT_TRUE(a == b);
  EXPECT_FALSE(a == (Shape{1, 2}));
}

TEST(ShapeTest, WithAndWithoutFirst_UndoEachOther) {
  const Shape shape{2, 3};
  EXPECT_EQ(shape.WithFirst(7), (Shape{7, 2, 3}));
  EXPECT_EQ(shape.WithFirst(7).WithoutFirst(), shape);
  EXPECT_EQ((Shape{5}).WithoutFirst(), Shape());
}

TEST(ShapeTest, NumElements_IsTheProduct) {
  EXPECT_EQ(Shape().NumElements(), 1);
  EXPECT_EQ((Shape{2, 3, 4}).NumElements(), 24);
  EXPECT_EQ((Shape{std::numeric_limits<int64_t>::max()}).NumElements(),
            std::numeric_limits<int64_t>::max());
}

TEST(ShapeTest, NumElements_OfAnOpenOrOverflowingShapeIsNone) {
  EXPECT_EQ((Shape{2, -1}).NumElements(), std::nullopt);
  EXPECT_EQ((Shape{0, -1}).NumElements(), std::nullopt);
  EXPECT_EQ((Shape{int64_t{1} << 32, int64_t{1} << 31}).NumElements(), std::nullopt);
}

TEST(ShapeTest, NumElements_OfAZeroDimensionIsZeroWhateverTheOthers) {
  EXPECT_EQ((Shape{int64_t{1} << 62, int64_t{1} << 62, 0}).NumElements(), 0);
}

TEST(ShapeTest, MaxRank_IsHeld) {
  Shape shape;
  for (size_t i = 0; i < kMaxRank; ++i) shape.Append(1);
  EXPECT_EQ(shape.rank(), kMaxRank);
  EXPECT_EQ(shape.WithoutFirst().WithFirst(1), shape);
}

}  // namespace
}  // namespace penstock
