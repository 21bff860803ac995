// The batching policy: a pure function. It is asked whenever an instance is idle: close the batch
// now, with which rows and why, or wait until when? No clock, no lock, no queue in here: tests
// drive it by table.

#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/clock.h"

namespace penstock {

// Why a batch closed; counted per model, so that a batch explains itself.
enum class CloseReason : uint8_t {
  kFull,          // the next request would not fit in, or max_batch_size is reached
  kPreferred,     // a preferred size was reached
  kDelay,         // the oldest request waited max_queue_delay
  kIdleInstance,  // no delay configured and an instance was free
  kShapeChange,   // requests of another shape are waiting behind it
  kDrain,         // the version is being drained: nothing more will come
  kBackground,    // an instance was free, and none but background requests were there
};
inline constexpr size_t kCloseReasonCount = 7;

// "full", "preferred", "delay", "idle_instance", "shape_change", "drain", "background".
std::string_view CloseReasonName(CloseReason reason);

struct BatchPolicy {
  uint32_t max_batch_size = 1;                  // rows; 1 for a model without a batch dimension
  std::vector<uint32_t> preferred_batch_sizes;  // rows, ascending; may be empty
  int64_t max_queue_delay_ns = 0;
  // Of requests' shared_bytes, together; a lone request may have more. 0 = no bound.
  uint64_t max_shared_bytes = 0;
  bool combines_requests =
      true;  // false: every request is a batch of its own (no dynamic_batching)
  // Of a batch of background requests alone: for how long another request may have to wait.
  uint32_t max_background_rows = 0;  // 0 = max_batch_size
};

// The batch that could be formed now: whole requests of one key, oldest and most urgent first.
struct Candidate {
  uint32_t rows = 0;     // of the longest run that fits max_batch_size; 0 = nothing is queued
  bool is_full = false;  // rows == max_batch_size, or the next request of that key does not fit
  uint32_t preferred_rows = 0;   // the largest preferred size that whole requests make; 0 = none
  int64_t oldest_ns = 0;         // when its oldest request was queued
  bool other_key_waits = false;  // requests of another key are queued
  bool is_draining = false;
};

struct Decision {
  bool close = false;
  // When close: rows of the batch and why, and how many rows of background requests of its key may
  // join. With kBackground the rows are theirs.
  uint32_t rows = 0;
  uint32_t background_room = 0;
  CloseReason reason = CloseReason::kIdleInstance;
  // When not: ask again then (kNever = when something is queued).
  int64_t wait_until_ns = kNever;
};

// Triton's rules for dynamic_batching, with two differences: a full batch and a lone request with
// delay 0 are never held, and waiting requests of another shape end the wait at once.
Decision Decide(const BatchPolicy& policy, const Candidate& candidate, int64_t now_ns);

// The same beside background requests, of which `background` could be a batch (beside others only
// whether it has rows matters). They fill what others leave open of a batch that takes all of them,
// and run by themselves only where no other request waits, not even for its delay: nobody waits for
// one of them but for the end of a batch that runs.
Decision DecideShared(const BatchPolicy& policy, const Candidate& candidate,
                      const Candidate& background, int64_t now_ns);

// The most rows of a batch of background requests alone.
uint32_t BackgroundRows(const BatchPolicy& policy);
// The most rows of background requests that join a batch of others. Fewer: those may have waited
// for a batch of background requests before, and now share theirs with these.
uint32_t JoiningRows(const BatchPolicy& policy);

}  // namespace penstock
