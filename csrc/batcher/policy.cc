#include "batcher/policy.h"

#include <algorithm>

namespace penstock {
namespace {

Decision Close(uint32_t rows, CloseReason reason) {
  return {.close = true, .rows = rows, .reason = reason};
}

// Rows that join the batch which `candidate` makes. Of those who stay behind it none shall wait for
// them, and a preferred size stays what it is.
uint32_t BackgroundRoom(const BatchPolicy& policy, const Candidate& candidate) {
  if (!policy.combines_requests) return 0;
  if (candidate.is_full || candidate.other_key_waits || candidate.preferred_rows != 0) return 0;
  return std::min(policy.max_batch_size - candidate.rows, JoiningRows(policy));
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
    case CloseReason::kBackground:
      return "background";
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

uint32_t BackgroundRows(const BatchPolicy& policy) {
  if (policy.max_background_rows == 0) return policy.max_batch_size;
  return std::min(policy.max_background_rows, policy.max_batch_size);
}

uint32_t JoiningRows(const BatchPolicy& policy) { return BackgroundRows(policy) / 4; }

Decision DecideShared(const BatchPolicy& policy, const Candidate& candidate,
                      const Candidate& background, int64_t now_ns) {
  Decision decision = Decide(policy, candidate, now_ns);
  if (background.rows == 0) return decision;
  if (decision.close) {
    decision.background_room = BackgroundRoom(policy, candidate);
    return decision;
  }
  if (candidate.rows != 0) return decision;
  return Close(background.rows, CloseReason::kBackground);
}

}  // namespace penstock
