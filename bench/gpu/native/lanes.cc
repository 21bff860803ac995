// Batches through lanes (csrc/gpu), and the same in a bare loop, which is what lanes are held against.

#include <memory>
#include <random>
#include <utility>

#include "bare_loop.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/strcat.h"
#include "gpu/device.h"
#include "gpu/pinned_pool.h"
#include "gpu_bench.h"

namespace penstock::gpu {
namespace {

constexpr size_t kMaxLanes = 4;
constexpr int kFewestBatches = 50;

// What a figure is called: the same of lanes and of the bare loop.
std::string What(size_t lanes, bool has_graphs, uint32_t rows) {
  return StrCat(lanes, " lanes, ", has_graphs ? "graphs" : "no graphs", ", batches of ", rows);
}

int BatchesOf(uint32_t rows, int batches) {
  return std::max(batches / static_cast<int>(rows), std::min(kFewestBatches, batches));
}

// Keeps every slot busy until all batches are over: one of each number of rows.
void RunBatches(LaneGroup& group, const std::vector<uint32_t>& rows) {
  Mutex mu;
  CondVar ended;
  size_t left = rows.size();
  for (const uint32_t each : rows) {
    auto lease = group.Acquire();
    CHECK_SUCCESS(lease.status());
    group.Submit(*std::move(lease), each, [&](const Status& status, SlotLease) {
      Check(status, "a batch");
      MutexLock lock(mu);
      if (--left == 0) ended.NotifyAll();
    });
  }
  MutexLock lock(mu);
  while (left > 0) ended.Wait(mu);
}

std::unique_ptr<LaneGroup> Load(const DeviceResources& device, DeviceEngine& engine,
                                const LaneGroupOptions& options) {
  auto group = LaneGroup::Load(device, engine, options);
  CHECK_SUCCESS(group.status());
  return *std::move(group);
}

struct Amount {
  int rounds, batches;
};

void MeasureGroup(const DeviceResources& device, DeviceEngine& engine,
                  const LaneGroupOptions& options, const Amount& amount) {
  const bool has_graphs = options.graph_budget_bytes > 0;
  const auto group = Load(device, engine, options);
  BareLoop bare(device.api, engine, options.lanes * options.slots_per_lane);
  for (const uint32_t rows : BucketTable::DefaultRows(engine.max_rows())) {
    const int batches = BatchesOf(rows, amount.batches);
    const std::string what = What(options.lanes, has_graphs, rows);
    const double all = static_cast<double>(rows) * batches;
    bare.Prepare(rows, has_graphs);
    PrintRate("bare loop: images in and out", what, "images/s", all,
              Seconds(amount.rounds, [&] { bare.Run(batches); }));
    const std::vector<uint32_t> each(static_cast<size_t>(batches), rows);
    PrintRate("lanes: images in and out", what, "images/s", all,
              Seconds(amount.rounds, [&] { RunBatches(*group, each); }));
  }
}

// Batches of every size: what padding them up to a graph's size wastes.
void MeasurePadding(const DeviceResources& device, DeviceEngine& engine, int batches) {
  const auto group = Load(device, engine, {});  // measures its graphs, and pads
  std::mt19937 random(1);
  std::uniform_int_distribution<uint32_t> any(1, engine.max_rows());
  std::vector<uint32_t> rows;
  double asked = 0;
  for (int i = 0; i < batches; ++i) asked += rows.emplace_back(any(random));
  RunBatches(*group, rows);
  const RunCounts counts = group->counts();
  auto padded = static_cast<double>(counts.uncaptured_padded_rows);
  for (const uint64_t bucket : counts.padded_rows) padded += static_cast<double>(bucket);
  const double share = 100 * padded / (asked + padded);
  Print("lanes: padding", StrCat("rows computed for nobody, batches of 1 to ", engine.max_rows()),
        "%", share, share, share);
}

}  // namespace

void MeasureLanes(Api& api, DeviceEngine& engine, int rounds, int batches) {
  LaneGroupOptions options{.measure_runs = 0};
  const auto block_bytes = SlotBytes(engine);
  CHECK_SUCCESS(block_bytes.status());
  const size_t graph_budget_bytes = options.graph_budget_bytes;
  const auto device = Device::Open(api, Clock::System(), {});
  CHECK_SUCCESS(device.status());
  const auto pool = PinnedPool::Create(api, (*device)->health(), *block_bytes,
                                       kMaxLanes * options.slots_per_lane);
  CHECK_SUCCESS(pool.status());
  const DeviceResources resources = (*device)->resources(**pool);
  for (options.lanes = 1; options.lanes <= kMaxLanes; ++options.lanes) {
    for (const bool has_graphs : {false, true}) {
      options.graph_budget_bytes = has_graphs ? graph_budget_bytes : 0;
      MeasureGroup(resources, engine, options, {rounds, batches});
    }
  }
  MeasurePadding(resources, engine, batches);
}

}  // namespace penstock::gpu
