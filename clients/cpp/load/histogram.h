// Histogram: latencies, counted so that percentiles come out with a known relative precision.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace penstock::load {

// Buckets grow with their values, as those of HdrHistogram do: each power of two has 128 of them, so
// a percentile is never too small, and less than 1/128 (0.8 %) too large. Negative values count as 0.
//
// Threading: thread-compatible. Cost: 57 KiB; Record allocates nothing and takes a few
// instructions.
class Histogram {
 public:
  void Record(int64_t value);
  void Add(const Histogram& other);

  uint64_t count() const { return count_; }
  int64_t max() const { return max_; }  // exact
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }

  // The least value that at least `percent` of a hundred values do not exceed; 0 without values.
  int64_t Percentile(double percent) const;

 private:
  static constexpr int kSubBits = 7;
  static constexpr size_t kSub = size_t{1} << kSubBits;
  static constexpr size_t kBuckets = (63 - kSubBits + 1) * kSub;

  static size_t Bucket(uint64_t value);
  static int64_t GreatestOf(size_t bucket);

  std::array<uint64_t, kBuckets> counts_{};
  uint64_t count_ = 0;
  int64_t max_ = 0;
  double sum_ = 0;
};

}  // namespace penstock::load
