#include "batcher/policy.h"

namespace penstock {
namespace {

Decision Close(uint32_t rows, CloseReason reason) {
  return {.close = true, .rows = rows, .reason = reason};
}

}  // namespace

std::string_view CloseReasonName(CloseReason reason) {
  switch (reason) {
    case CloseReason::kFull:
      return "full";
    case CloseReason::kPreferred:
      return "preferred";
    case CloseReason::kDelay:
      return "delay";
    case CloseReason::kIdleInstance:
      return "idle_instance";
    case CloseReason::kShapeChange:
      return "shape_change";
    case CloseReason::kDrain:
      return "drain";
  }
  return "unknown";
}

Decision Decide(const BatchPolicy& policy, const Candidate& candidate, int64_t now_ns) {
  if (candidate.rows == 0) return {};
  if (candidate.preferred_rows != 0) {
    return Close(candidate.preferred_rows, CloseReason::kPreferred);
  }
  if (candidate.is_full) return Close(candidate.rows, CloseReason::kFull);
  if (candidate.is_draining) return Close(candidate.rows, CloseReason::kDrain);
  if (candidate.other_key_waits) return Close(candidate.rows, CloseReason::kShapeChange);
  if (policy.max_queue_delay_ns == 0) return Close(candidate.rows, CloseReason::kIdleInstance);
  int64_t due_ns = 0;
  if (__builtin_add_overflow(candidate.oldest_ns, policy.max_queue_delay_ns, &due_ns)) {
    due_ns = kNever;
  }
  if (now_ns >= due_ns) return Close(candidate.rows, CloseReason::kDelay);
  return {.wait_until_ns = due_ns};
}

}  // namespace penstock
