// GraphCache: the graphs of a lane, one for each bucket and slot, made when the model is loaded.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/status.h"
#include "gpu/device_engine.h"
#include "gpu/device_health.h"
#include "gpu/gpu_handles.h"
#include "gpu/slot.h"

namespace penstock::gpu {

// What graphs and their contexts may hold of the device's memory, all lanes of a model together.
// Threading: confined to who loads the model.
struct GraphBudget {
  size_t limit_bytes = 0;
  size_t used_bytes = 0;
};

// Threading: Capture by who loads the model; then Find is thread-safe.
// Ownership: owns graphs and the contexts that they were captured from, which keep what is in them
// alive. Borrows the rest, slots included.
class GraphCache {
 public:
  GraphCache(Api& api, DeviceHealth& health, DeviceEngine& engine, GraphBudget& budget)
      : api_(api), health_(health), engine_(engine), budget_(budget) {}

  // Makes the graph of `rows` rows in the slot's memory. It runs once without one, so that what the
  // engine does only the first time is not in it, and once with it. RESOURCE_EXHAUSTED beyond the
  // budget; whatever the failure, the stream can be used on unless the device is faulted.
  // Cost: what the graph and its context hold is the difference in free memory, so others had
  // better not allocate meanwhile.
  // Blocking: until the device is through.
  Status Capture(const Slot& slot, size_t bucket, uint32_t rows, Stream stream);

  // Gives the bucket's graphs and what they hold of the budget back. REQUIRES: none of them runs.
  void Drop(size_t bucket);

  // Gives back what captures that failed left. REQUIRES: the streams that they had are through.
  void DropUnfinished() { unfinished_.clear(); }

  // Null: there is none.
  GraphExec Find(const Slot& slot, size_t bucket) const;
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::unique_ptr<DeviceContext> context;
    OwnedGraphExec exec;
    size_t held_bytes = 0;
  };

  Status Make(Entry& entry, uint32_t rows, Stream stream);
  Status Warm(DeviceContext& context, uint32_t rows, Stream stream);
  Result<OwnedGraphExec> Record(DeviceContext& context, uint32_t rows, Stream stream);
  Result<size_t> FreeBytes();

  Api& api_;
  DeviceHealth& health_;
  DeviceEngine& engine_;
  GraphBudget& budget_;
  std::map<std::pair<size_t, size_t>, Entry> entries_;  // by slot and bucket
  // Of captures that failed while something may still run in them.
  std::vector<Entry> unfinished_;
};

}  // namespace penstock::gpu
