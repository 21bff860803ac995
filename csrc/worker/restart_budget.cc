#include "worker/restart_budget.h"

#include <algorithm>

namespace penstock {

std::optional<int64_t> RestartBudget::OnEnd(int64_t now_ns) {
  while (!ends_ns_.empty() && now_ns - ends_ns_.front() > options_.window_ns) ends_ns_.pop_front();
  if (ends_ns_.size() >= options_.max_restarts) return std::nullopt;
  ends_ns_.push_back(now_ns);
  int64_t delay_ns = 0;
  for (size_t ends = 1; ends < ends_ns_.size(); ++ends) {
    delay_ns = delay_ns == 0 ? options_.first_delay_ns : delay_ns * 2;
    if (delay_ns >= options_.max_delay_ns) return options_.max_delay_ns;
  }
  return delay_ns;
}

}  // namespace penstock
