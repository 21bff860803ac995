// LaneGroup: a model on a device: its lanes, and which of them runs the next batch.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/status.h"
#include "gpu/bucket_table.h"
#include "gpu/lane.h"
#include "gpu/run_counters.h"
#include "gpu/slot.h"

namespace penstock::gpu {

struct LaneGroupOptions {
  size_t lanes = 2;
  size_t slots_per_lane = 2;                    // one is copied while the other computes
  std::vector<uint32_t> bucket_rows = {};       // empty: BucketTable::DefaultRows
  size_t graph_budget_bytes = size_t{1} << 30;  // 0: no graphs
  size_t measure_runs = 5;                      // 0: nothing is measured, and nothing padded
};

// Threading: thread-safe.
// Ownership: owns lanes; borrows device and engine.
// Lifecycle: the destructor wakes who waits in Acquire, then waits until they have left it and all
// leases are back.
// Blocking: Load (captures, measures), Acquire, the destructor.
class LaneGroup {
 public:
  // A bucket that cannot be captured runs without a graph; the log says why. UNAVAILABLE where the
  // device is lost on the way.
  static Result<std::unique_ptr<LaneGroup>> Load(const DeviceResources& device,
                                                 DeviceEngine& engine,
                                                 const LaneGroupOptions& options);
  ~LaneGroup();
  LaneGroup(const LaneGroup&) = delete;
  LaneGroup& operator=(const LaneGroup&) = delete;

  // Room for a batch; empty where there is none now: that is back-pressure.
  SlotLease TryAcquire();
  // Waits for it; UNAVAILABLE on a lost device or at the end.
  Result<SlotLease> Acquire();
  // Lane::Submit of the slot's lane. REQUIRES: the lease is of this group.
  void Submit(SlotLease lease, uint32_t rows, BatchDone done, Route* route = nullptr);
  // Lane::SubmitShaped, likewise.
  void SubmitShaped(SlotLease lease, ShapedBatch& batch, BatchDone done, Route* route = nullptr);

  const BucketTable& table() const { return table_; }
  RunCounts counts() const { return counters_.Get(); }
  size_t slots() const { return slots_; }
  size_t graph_bytes() const { return budget_.used_bytes; }
  size_t graph_budget_bytes() const { return budget_.limit_bytes; }

 private:
  LaneGroup(const DeviceResources& device, DeviceEngine& engine, BucketTable table,
            size_t graph_budget_bytes);

  Status AddLanes(const LaneGroupOptions& options);
  Status CaptureAll();
  Status CaptureBucket(size_t bucket);
  Status MeasureAll(size_t runs);
  Status MeasureChanges();
  Status Open(size_t slots_per_lane);

  const DeviceResources device_;
  DeviceEngine& engine_;
  GraphBudget budget_;  // changed by Load only, as is table_
  BucketTable table_;
  RunCounters counters_;  // own synchronisation, as has free_
  FreeSlots free_;
  std::vector<std::unique_ptr<Lane>> lanes_;
  size_t slots_ = 0;
};

}  // namespace penstock::gpu
