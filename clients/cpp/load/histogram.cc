#include "load/histogram.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace penstock::load {

// Values below 256 have a bucket each. A greater one is shifted right until it is in [128, 256): the
// shift is its power of two, what is left its place in it.
size_t Histogram::Bucket(uint64_t value) {
  const int shift = std::max(0, static_cast<int>(std::bit_width(value)) - (kSubBits + 1));
  return static_cast<size_t>(shift) * kSub + (value >> shift);
}

int64_t Histogram::GreatestOf(size_t bucket) {
  if (bucket < 2 * kSub) return static_cast<int64_t>(bucket);
  const size_t shift = bucket / kSub - 1;
  const uint64_t place = bucket - shift * kSub;
  return static_cast<int64_t>(((place + 1) << shift) - 1);
}

void Histogram::Record(int64_t value) {
  value = std::max<int64_t>(0, value);
  ++counts_[Bucket(static_cast<uint64_t>(value))];
  ++count_;
  max_ = std::max(max_, value);
  sum_ += static_cast<double>(value);
}

void Histogram::Add(const Histogram& other) {
  for (size_t i = 0; i < kBuckets; ++i) counts_[i] += other.counts_[i];
  count_ += other.count_;
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

int64_t Histogram::Percentile(double percent) const {
  if (count_ == 0) return 0;
  const double share = std::clamp(percent, 0.0, 100.0) / 100 * static_cast<double>(count_);
  // A hair less, lest rounding ask for one value more than there are: 99.9 % of 1000 is 999.
  const auto wanted = std::max<uint64_t>(1, static_cast<uint64_t>(std::ceil(share - 1e-6)));
  uint64_t seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += counts_[i];
    if (seen >= wanted) return std::min(max_, GreatestOf(i));
  }
  return max_;
}

}  // namespace penstock::load
