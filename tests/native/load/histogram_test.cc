#include "load/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace penstock::load {
namespace {

TEST(Histogram, EmptyOneSaysZero) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.Percentile(99), 0);
  EXPECT_EQ(histogram.max(), 0);
  EXPECT_EQ(histogram.mean(), 0);
}

TEST(Histogram, SmallValuesAreExact) {
  Histogram histogram;
  for (int64_t value = 1; value <= 200; ++value) histogram.Record(value);
  EXPECT_EQ(histogram.Percentile(0), 1);
  EXPECT_EQ(histogram.Percentile(50), 100);
  EXPECT_EQ(histogram.Percentile(99.5), 199);
  EXPECT_EQ(histogram.Percentile(100), 200);
  EXPECT_EQ(histogram.mean(), 100.5);
}

TEST(Histogram, PercentilesAreNeverLowAndLessThanOnePercentHigh) {
  std::mt19937_64 random(7);
  Histogram histogram;
  std::vector<int64_t> values(20'000);
  for (int64_t& value : values) {
    value = static_cast<int64_t>(random() >> (1 + random() % 62));  // every order of magnitude
    histogram.Record(value);
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {1.0, 10.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
    const auto rank = static_cast<size_t>(std::ceil(percent / 100 * values.size() - 1e-6));
    const auto exact = static_cast<double>(values[rank - 1]);
    const auto said = static_cast<double>(histogram.Percentile(percent));
    EXPECT_GE(said, exact) << percent;
    EXPECT_LE(said, exact * (1 + 1.0 / 128)) << percent;
  }
}

TEST(Histogram, TakesNegativeAndGreatestValues) {
  Histogram histogram;
  histogram.Record(-5);
  histogram.Record(std::numeric_limits<int64_t>::max());
  EXPECT_EQ(histogram.Percentile(50), 0);
  EXPECT_EQ(histogram.max(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(histogram.Percentile(100), std::numeric_limits<int64_t>::max());
}

TEST(Histogram, AddedOnesAreAsOneThatSawAll) {
  Histogram one;
  Histogram other;
  Histogram both;
  for (int64_t value = 0; value < 100'000; value += 37) {
    (value % 2 == 0 ? one : other).Record(value * value);
    both.Record(value * value);
  }
  one.Add(other);
  EXPECT_EQ(one.count(), both.count());
  EXPECT_EQ(one.max(), both.max());
  for (const double percent : {1.0, 50.0, 99.9}) {
    EXPECT_EQ(one.Percentile(percent), both.Percentile(percent));
  }
}

}  // namespace
}  // namespace penstock::load
