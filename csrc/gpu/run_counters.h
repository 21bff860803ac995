// RunCounters: how the batches of a model ran on its device.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "gpu/bucket_table.h"
#include "gpu/busy_time.h"

namespace penstock::gpu {

struct RunCounts {
  std::vector<uint64_t> graph_runs;   // per bucket
  std::vector<uint64_t> padded_rows;  // per bucket: computed and thrown away
  uint64_t uncaptured_runs = 0;       // without a graph
  uint64_t uncaptured_padded_rows = 0;
  uint64_t row_changes = 0;  // of an engine that pays for them: runs with other rows than the last
  uint64_t busy_ns =
      0;  // at least one batch had its inputs on the device, and was not computed yet
};

// Threading: thread-safe; no order between one counter and another.
class RunCounters {
 public:
  explicit RunCounters(size_t buckets) : buckets_(buckets) {}

  void Add(uint32_t rows, const RunPlan& plan) {
    if (!plan.bucket) {
      uncaptured_runs_.fetch_add(1, std::memory_order_relaxed);
      uncaptured_padded_rows_.fetch_add(plan.rows - rows, std::memory_order_relaxed);
      return;
    }
    OneBucket& bucket = buckets_[*plan.bucket];
    bucket.graph_runs.fetch_add(1, std::memory_order_relaxed);
    bucket.padded_rows.fetch_add(plan.rows - rows, std::memory_order_relaxed);
  }

  void AddRowChange() { row_changes_.fetch_add(1, std::memory_order_relaxed); }

  BusyTime& busy() { return busy_; }  // added to by the device's completion thread

  RunCounts Get() const {
    RunCounts counts;
    for (const OneBucket& bucket : buckets_) {
      counts.graph_runs.push_back(bucket.graph_runs.load(std::memory_order_relaxed));
      counts.padded_rows.push_back(bucket.padded_rows.load(std::memory_order_relaxed));
    }
    counts.uncaptured_runs = uncaptured_runs_.load(std::memory_order_relaxed);
    counts.uncaptured_padded_rows = uncaptured_padded_rows_.load(std::memory_order_relaxed);
    counts.row_changes = row_changes_.load(std::memory_order_relaxed);
    counts.busy_ns = busy_.ns();
    return counts;
  }

 private:
  struct OneBucket {
    std::atomic<uint64_t> graph_runs{0}, padded_rows{0};
  };

  // Own synchronisation.
  std::vector<OneBucket> buckets_;
  std::atomic<uint64_t> uncaptured_runs_{0}, uncaptured_padded_rows_{0}, row_changes_{0};
  BusyTime busy_;
};

}  // namespace penstock::gpu
