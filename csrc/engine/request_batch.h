// RequestBatch: the requests of one batch as a backend sees them that answers them one by one.

#pragma once

#include <span>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "batcher/batcher.h"
#include "engine/kept_requests.h"
#include "engine/statistics.h"
#include "engine/version_spec.h"

namespace penstock {

// Scratch memory of one instance, used again for every batch.
// Threading: confined to its instance's thread.
class RequestBatch {
 public:
  // Opens the channels of the requests whose outcome is OK.
  void Open(const Batch& batch, std::span<const Status> outcomes, const VersionSpec& spec);
  std::span<const BatchRequest> requests() const { return requests_; }

  // ExecuteRequests has returned `executed`. Each request whose outcome was OK gets its own, or is
  // kept: was_kept() then says so of it, and it is in `kept`.
  void Settle(const Batch& batch, const Status& executed, const BatchTimes& times,
              std::span<Status> outcomes, KeptRequests* kept);
  const std::vector<bool>& was_kept() const { return was_kept_; }
  // Of no request of `batch`.
  void ClearKept(const Batch& batch) { was_kept_.assign(batch.requests.size(), false); }

 private:
  std::vector<BatchRequest> requests_;
  std::vector<Parameter> parameters_;  // of all requests, as `wanted_`
  std::vector<size_t> wanted_;
  std::vector<bool> was_kept_;  // by request of the batch
};

}  // namespace penstock
