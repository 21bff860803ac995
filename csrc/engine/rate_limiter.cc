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

int64_t FillNs(RateLimit limit) {  // for one call
  return static_cast<int64_t>(std::ceil(std::min(kSecondNs / limit.per_second, kLongestNs)));
}

// Until there is one in a bucket that would, without it, be full at `full_at_ns`.
int64_t WaitNs(int64_t full_at_ns, RateLimit limit, int64_t now_ns) {
  const double whole = static_cast<double>(FillNs(limit)) * std::max(limit.burst, 1.0);
  const auto whole_ns = static_cast<int64_t>(std::min(whole, kLongestNs));
  return std::max<int64_t>(full_at_ns - now_ns - whole_ns, 0);
}

}  // namespace

int64_t RateLimiter::Take(std::string_view caller, RateLimit limit, int64_t now_ns) {
  if (limit.per_second <= 0) return 0;
  MutexLock lock(mu_);
  Bucket& bucket = Find(caller, now_ns);
  const int64_t full_at_ns = std::max(bucket.full_at_ns, now_ns) + FillNs(limit);
  if (const int64_t wait_ns = WaitNs(full_at_ns, limit, now_ns); wait_ns > 0) return wait_ns;
  bucket.full_at_ns = full_at_ns;
  return 0;
}

int64_t RateLimiter::Wait(std::string_view caller, RateLimit limit, int64_t now_ns) const {
  if (limit.per_second <= 0) return 0;
  MutexLock lock(mu_);
  const auto found = by_caller_.find(caller);
  if (found == by_caller_.end()) return 0;
  return WaitNs(std::max(found->second->full_at_ns, now_ns) + FillNs(limit), limit, now_ns);
}

void RateLimiter::Charge(std::string_view caller, RateLimit limit, int64_t now_ns) {
  MutexLock lock(mu_);
  Bucket& bucket = Find(caller, now_ns);
  bucket.full_at_ns = std::max(bucket.full_at_ns, now_ns) + FillNs(limit);
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
