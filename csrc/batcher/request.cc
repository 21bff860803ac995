#include "batcher/request.h"

namespace penstock {

void Request::ResetForReuse() {
  key.clear();
  rows = 1;
  priority = 0;
  timeout_us = 0;
  deadline_ns = kNever;
  is_background = false;
  is_job = false;
  is_cancelled_.store(false, std::memory_order_relaxed);
  state_ = State::kNew;
  expires_by_timeout_ = false;
  level_ = 0;
  enqueue_ns_ = 0;
  expiry_ns_ = kNever;
  sequence_ = 0;
  is_finished_ = false;
  outcome_ = Status();
}

}  // namespace penstock
