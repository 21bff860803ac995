// RestartBudget: when a worker that ended is started again, and when no more.

#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "base/clock.h"

namespace penstock {

struct RestartOptions {
  uint32_t max_restarts = 5;  // within `window_ns`; 0 = never
  int64_t window_ns = int64_t{300} * 1'000'000'000;
  int64_t first_delay_ns = 500'000'000;  // before the second restart; doubles
  int64_t max_delay_ns = int64_t{30} * 1'000'000'000;
};

// Pure: time is what it is told.
// Threading: thread-compatible.
class RestartBudget {
 public:
  explicit RestartBudget(RestartOptions options) : options_(options) {}

  // The worker has ended at `now_ns`. How long to wait before it is started again, nothing for the
  // first time in a window; nullopt = the budget is spent.
  std::optional<int64_t> OnEnd(int64_t now_ns);

  // From when on a worker may be started again although the budget was spent; kNever where it never may.
  int64_t spent_until_ns() const {
    return ends_ns_.empty() ? kNever : ends_ns_.front() + options_.window_ns;
  }

  const RestartOptions& options() const { return options_; }

 private:
  const RestartOptions options_;
  std::deque<int64_t> ends_ns_;  // within the window
};

}  // namespace penstock
