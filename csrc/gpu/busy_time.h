// BusyTime: for how long at least one of several things was under way.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace penstock::gpu {

// The union of intervals: where they overlap it counts once.
// Threading: Add on one thread; ns() on any.
class BusyTime {
 public:
  // One of them was under way from `since_ns` to `until_ns`, which does not fall from call to call.
  void Add(int64_t since_ns, int64_t until_ns) {
    since_ns = std::max(since_ns, counted_until_ns_);
    if (since_ns >= until_ns) return;
    ns_.fetch_add(static_cast<uint64_t>(until_ns - since_ns), std::memory_order_relaxed);
    counted_until_ns_ = until_ns;
  }

  uint64_t ns() const { return ns_.load(std::memory_order_relaxed); }

 private:
  int64_t counted_until_ns_ = 0;  // only on the thread that adds
  std::atomic<uint64_t> ns_{0};   // own synchronisation
};

}  // namespace penstock::gpu
