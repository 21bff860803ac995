// RateLimiter: how often each of many callers may call.

#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/mutex.h"

namespace penstock {

// A bucket of `burst` calls that fills at `per_second`. per_second 0 = no limit.
struct RateLimit {
  double per_second = 0;
  double burst = 1;  // at least 1
};

// A bucket per caller. One number says all of a bucket: when it will be full again. A bucket that
// is full says nothing and is dropped as others come, so that what is kept is bounded by who called
// lately, and in any case by `max_callers`, from where the one that has been quiet for longest goes.
// Threading: thread-safe.
class RateLimiter {
 public:
  explicit RateLimiter(size_t max_callers) : max_callers_(max_callers) {}

  // Takes one call out of the bucket of `caller`: 0, or how many nanoseconds until there is one.
  int64_t Take(std::string_view caller, RateLimit limit, int64_t now_ns);
  // The same, and takes none.
  int64_t Wait(std::string_view caller, RateLimit limit, int64_t now_ns) const;
  // Takes one out of the bucket, be it there or not: for what is known only afterwards.
  void Charge(std::string_view caller, RateLimit limit, int64_t now_ns);

  size_t size() const;

 private:
  struct Bucket {
    std::string caller;
    int64_t full_at_ns = 0;
  };
  using Buckets = std::list<Bucket>;

  Bucket& Find(std::string_view caller, int64_t now_ns) REQUIRES(mu_);

  // Constant after construction.
  const size_t max_callers_;

  mutable Mutex mu_;
  // Guarded by mu_.
  Buckets buckets_ GUARDED_BY(mu_);  // the latest caller first
  // The keys are views on the buckets' names.
  std::unordered_map<std::string_view, Buckets::iterator> by_caller_ GUARDED_BY(mu_);
};

}  // namespace penstock
