#include "engine/rate_limiter.h"

#include <algorithm>
#include <cmath>

namespace penstock {
namespace {

constexpr double kSecondNs = 1e9;
constexpr double kLongestNs = 1e18;  // some thirty years: no sum of two of them overflows
// At each call at most this many that are full leave: two for one that comes, so that they do get
// fewer, and none waits for a long sweep.
constexpr int kDropsPerCall = 2;

}  // namespace

int64_t RateLimiter::Take(std::string_view caller, RateLimit limit, int64_t now_ns) {
  if (limit.per_second <= 0) return 0;
  const double fill_ns = std::min(kSecondNs / limit.per_second, kLongestNs);  // for one call
  MutexLock lock(mu_);
  Bucket& bucket = Find(caller, now_ns);
  const int64_t full_at_ns =
      std::max(bucket.full_at_ns, now_ns) + static_cast<int64_t>(std::ceil(fill_ns));
  const double whole = std::ceil(fill_ns) * std::max(limit.burst, 1.0);
  const auto whole_ns = static_cast<int64_t>(std::min(whole, kLongestNs));
  if (const int64_t wait_ns = full_at_ns - now_ns - whole_ns; wait_ns > 0) return wait_ns;
  bucket.full_at_ns = full_at_ns;
  return 0;
}

RateLimiter::Bucket& RateLimiter::Find(std::string_view caller, int64_t now_ns) {
  if (const auto found = by_caller_.find(caller); found != by_caller_.end()) {
    buckets_.splice(buckets_.begin(), buckets_, found->second);
  } else {
    buckets_.push_front({std::string(caller)});
    by_caller_.emplace(buckets_.front().caller, buckets_.begin());
  }
  for (int i = 0; i < kDropsPerCall && buckets_.size() > 1; ++i) {
    const bool is_full = buckets_.back().full_at_ns <= now_ns;
    if (!is_full && buckets_.size() <= max_callers_) break;
    by_caller_.erase(buckets_.back().caller);
    buckets_.pop_back();
  }
  return buckets_.front();
}

size_t RateLimiter::size() const {
  MutexLock lock(mu_);
  return buckets_.size();
}

}  // namespace penstock
