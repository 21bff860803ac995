#include "gpu/lane_group.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"

namespace penstock::gpu {
namespace {

// The quickest counts: what else goes on makes a run slower, never quicker.
constexpr int kChangeRuns = 2;

constexpr int64_t kNsPerUs = 1000;

// The sizes to measure, and to have graphs for.
std::vector<uint32_t> BucketRows(const DeviceEngine& engine, const LaneGroupOptions& options) {
  auto rows = options.bucket_rows.empty() ? BucketTable::DefaultRows(engine.max_rows())
                                          : options.bucket_rows;
  // From one row on, so that what fewer rows would save is known of any batch.
  if (engine.row_changes_cost() && rows.front() > 1) rows.insert(rows.begin(), 1);
  return rows;
}

}  // namespace

Result<std::unique_ptr<LaneGroup>> LaneGroup::Load(const DeviceResources& device,
                                                   DeviceEngine& engine,
                                                   const LaneGroupOptions& options) {
  PENSTOCK_RETURN_IF_ERROR(device.health.fault());
  if (options.lanes == 0 || options.slots_per_lane == 0 || engine.max_rows() == 0) {
    return InvalidArgument(StrCat(engine.name(), ": expected lanes, slots and rows, got ",
                                  options.lanes, ", ", options.slots_per_lane, " and ",
                                  engine.max_rows()));
  }
  PENSTOCK_ASSIGN_OR_RETURN(
      auto table,
      BucketTable::Create(BucketRows(engine, options), engine.max_rows(), engine.takes_any_rows()));
  std::unique_ptr<LaneGroup> group(
      new LaneGroup(device, engine, std::move(table), options.graph_budget_bytes));
  PENSTOCK_RETURN_IF_ERROR(group->AddLanes(options));
  PENSTOCK_RETURN_IF_ERROR(group->CaptureAll());
  if (options.measure_runs > 0) PENSTOCK_RETURN_IF_ERROR(group->MeasureAll(options.measure_runs));
  PENSTOCK_RETURN_IF_ERROR(group->Open(options.slots_per_lane));
  return group;
}

Status LaneGroup::Open(size_t slots_per_lane) {
  // A bucket that could not be captured may have left work behind.
  for (auto& lane : lanes_) PENSTOCK_RETURN_IF_ERROR(lane->Settle());
  for (size_t i = 0; i < slots_per_lane; ++i) {
    for (auto& lane : lanes_) free_.Put(lane->slots()[i].get());
  }
  slots_ = lanes_.size() * slots_per_lane;
  return Status::Ok();
}

LaneGroup::LaneGroup(const DeviceResources& device, DeviceEngine& engine, BucketTable table,
                     size_t graph_budget_bytes)
    : device_(device),
      engine_(engine),
      budget_{.limit_bytes = graph_budget_bytes},
      table_(std::move(table)),
      counters_(table_.buckets().size()) {}

LaneGroup::~LaneGroup() {
  free_.Close(Unavailable(StrCat(engine_.name(), " is being unloaded")));
  free_.AwaitAll(slots_);
}

Status LaneGroup::AddLanes(const LaneGroupOptions& options) {
  const LaneEnvironment environment{device_, engine_, free_, budget_, table_, counters_};
  for (size_t i = 0; i < options.lanes; ++i) {
    PENSTOCK_ASSIGN_OR_RETURN(auto lane, Lane::Create(environment, options.slots_per_lane));
    lanes_.push_back(std::move(lane));
  }
  return Status::Ok();
}

// Small batches first: they gain most, should the budget not be enough for all.
Status LaneGroup::CaptureAll() {
  for (size_t i = 0; i < table_.buckets().size() && budget_.limit_bytes > 0; ++i) {
    const Status captured = CaptureBucket(i);
    table_.bucket(i).has_graph = captured.ok();
    if (captured.ok()) continue;
    PENSTOCK_RETURN_IF_ERROR(device_.health.fault());
    for (auto& lane : lanes_) lane->Drop(i);
    Log(LogLevel::kWarning, "gpu",
        StrCat(engine_.name(), " runs without a graph at ", table_.buckets()[i].rows,
               " rows: ", captured.message()));
  }
  return Status::Ok();
}

Status LaneGroup::CaptureBucket(size_t bucket) {
  for (auto& lane : lanes_) PENSTOCK_RETURN_IF_ERROR(lane->Capture(bucket));
  return Status::Ok();
}

Status LaneGroup::MeasureAll(size_t runs) {
  for (size_t i = 0; i < table_.buckets().size(); ++i) {
    Bucket& bucket = table_.bucket(i);
    PENSTOCK_ASSIGN_OR_RETURN(bucket.eager_ns, lanes_.front()->Measure({bucket.rows}, runs));
    if (!bucket.has_graph) continue;
    PENSTOCK_ASSIGN_OR_RETURN(bucket.graph_ns, lanes_.front()->Measure({bucket.rows, i}, runs));
  }
  return engine_.row_changes_cost() ? MeasureChanges() : Status::Ok();
}

// Each size has been run by now: what an engine does for one once in its life is not in it. The other
// lanes do that, too, and not within requests.
Status LaneGroup::MeasureChanges() {
  for (size_t i = 1; i < lanes_.size(); ++i) {
    for (const Bucket& bucket : table_.buckets()) {
      PENSTOCK_RETURN_IF_ERROR(lanes_[i]->Measure({bucket.rows}, 1).status());
    }
  }
  if (table_.buckets().size() < 2) return Status::Ok();
  for (int run = 0; run < kChangeRuns; ++run) {
    for (size_t i = 0; i < table_.buckets().size(); ++i) {
      Bucket& bucket = table_.bucket(i);
      PENSTOCK_ASSIGN_OR_RETURN(const int64_t took_ns, lanes_.front()->Measure({bucket.rows}, 1));
      bucket.first_ns = std::min(bucket.first_ns.value_or(took_ns), took_ns);
    }
  }
  if (!table_.ChangesCost()) return Status::Ok();
  const uint32_t most = engine_.max_rows();
  Log(LogLevel::kInfo, "gpu",
      StrCat(engine_.name(), " takes ", *table_.EagerNs(most) / kNsPerUs, " us for ", most,
             " rows, and ", table_.ChangeNs(most) / kNsPerUs,
             " us more when its rows have changed: it seldom changes them"));
  return Status::Ok();
}

SlotLease LaneGroup::TryAcquire() {
  Slot* slot = free_.TryTake();
  SlotLease lease = slot == nullptr ? SlotLease() : SlotLease(free_, slot);
  return device_.health.is_faulted() ? SlotLease() : std::move(lease);
}

Result<SlotLease> LaneGroup::Acquire() {
  PENSTOCK_ASSIGN_OR_RETURN(Slot * slot, free_.Take(device_.clock));
  SlotLease lease(free_, slot);
  // Asked when the slot is there: one that a fault brought back may still be written to.
  PENSTOCK_RETURN_IF_ERROR(device_.health.fault());
  return lease;
}

void LaneGroup::Submit(SlotLease lease, uint32_t rows, BatchDone done, Route* route) {
  Lane& lane = *lease.slot().lane;
  lane.Submit(std::move(lease), rows, std::move(done), route);
}

void LaneGroup::SubmitShaped(SlotLease lease, ShapedBatch& batch, BatchDone done, Route* route) {
  Lane& lane = *lease.slot().lane;
  lane.SubmitShaped(std::move(lease), batch, std::move(done), route);
}

}  // namespace penstock::gpu
