// Lane: the way of a model's batches through a device: copied in, computed, copied out, each on a
// stream of its own, so that one batch is copied while another computes.
//
//   copy-in  stream: copy in | record copied_in
//   compute  stream: wait for copied_in | graph or engine | record computed
//   copy-out stream: wait for computed | copy out | record copied_out
//
// The completion thread asks for the last event: the batch is over. From copied_in to computed, which it
// asks for as well, the model keeps the device busy (RunCounts::busy_ns): what it waits for then on its
// stream is the batch before. Inputs that are there when the engine has enqueued count from before that.
//
// "Copy in" is from the slot's pinned memory, and from wherever else a Route says: registered memory of
// the host's, clients' memory on this device or another. "Copy out" is to the same.
//
// A slot is used again when copied_out has been seen, behind which all of its batch lies: nothing
// else needs to wait.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "gpu/bucket_table.h"
#include "gpu/completion_thread.h"
#include "gpu/device_engine.h"
#include "gpu/device_health.h"
#include "gpu/gpu_handles.h"
#include "gpu/graph_cache.h"
#include "gpu/pinned_pool.h"
#include "gpu/route.h"
#include "gpu/run_counters.h"
#include "gpu/slot.h"
#include "gpu/steady_rows.h"

namespace penstock::gpu {

// What a model's lanes have of a device. Everything outlives them.
struct DeviceResources {
  Api& api;
  DeviceHealth& health;
  CompletionThread& completion;
  PinnedPool& pool;
  Clock& clock;
  int device = 0;  // as this process numbers them
};

// What the lanes of a model share. Everything outlives them.
struct LaneEnvironment : DeviceResources {
  DeviceEngine& engine;
  FreeSlots& free;
  GraphBudget& graph_budget;
  const BucketTable& table;  // changed while the model is loaded only
  RunCounters& counters;
};

// What a slot of the engine's takes: of pinned memory, and as much of the device's. INVALID_ARGUMENT
// where that is more than a size can say.
Result<size_t> SlotBytes(const DeviceEngine& engine);

// Threading: Submit is thread-safe; Capture, Drop, Measure and Settle belong to who loads the model.
// Ownership: owns streams, slots and graphs; borrows its environment. On a lost device graphs and
// the engine's contexts are left to the end of the process.
// Lifecycle: Create -> Capture*, Drop*, Measure* -> Settle -> Submit*; destroyed when all slots are
// back.
// Blocking: Submit, while another batch of the lane is enqueued: its copies for copies, its engine for
// engines, so that a batch is copied in while an engine launches kernel by kernel; and where the engine
// waits in a run (ONNX Runtime's in one of 61); the destructor, until the streams are through.
class Lane {
 public:
  // Takes its memory: on the device, and from the pinned pool, which must have blocks for all
  // slots (RESOURCE_EXHAUSTED).
  static Result<std::unique_ptr<Lane>> Create(const LaneEnvironment& environment, size_t slots);

  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  std::vector<std::unique_ptr<Slot>>& slots() { return slots_; }

  // Makes the bucket's graphs, one for each slot. Not OK: the lane works without.
  Status Capture(size_t bucket);
  // Gives back what Capture made for the bucket, for those slots that it came to.
  void Drop(size_t bucket);
  // The median of `runs` runs of the plan, host's time, in nanoseconds.
  Result<int64_t> Measure(const RunPlan& plan, size_t runs);

  // Waits until what Capture and Measure enqueued is over, which they leave to it when they fail.
  Status Settle();

  // Runs the first `rows` rows of the slot's inputs. `done` is called exactly once: on the
  // completion thread, or here where nothing was enqueued. `route` is read until Submit returns; what
  // it holds is the slot's from then on. No memory: RESOURCE_EXHAUSTED, or bad_alloc where nothing was
  // enqueued, the slot is back and `done` not called. REQUIRES: the slot is this lane's.
  void Submit(SlotLease lease, uint32_t rows, BatchDone done, Route* route = nullptr);
  // The same for a batch of an engine that leaves shapes open, always without a graph. `batch` lives
  // until Submit has returned and `done` been called; what its outputs are is there by then.
  void SubmitShaped(SlotLease lease, ShapedBatch& batch, BatchDone done, Route* route = nullptr);

 private:
  explicit Lane(const LaneEnvironment& environment);

  void AwaitStreams();
  Status CreateStreams();
  Status AddSlot(size_t slab_bytes, const std::vector<size_t>& offsets);
  Status ClearInputs(Slot& slot, size_t slab_bytes);
  Result<OwnedEvent> MakeEvent();

  // What is enqueued between the copies, and how many bytes of each tensor are copied from or to where.
  struct Work {
    uint32_t rows;
    ShapedBatch* shaped = nullptr;
    Route* route = nullptr;
  };
  struct PeerCopy {
    Copy copy;
    int to_device, from_device;
  };

  size_t InputBytes(const Work& work, size_t input) const;
  size_t OutputBytes(const Work& work, size_t output) const;
  size_t OutputRowBytes(const Work& work, size_t output) const;
  Status CheckBatch(const Work& work) const;
  Status CheckShapes(const Work& work) const;
  Status CheckRoute(const Work& work) const;
  void Start(SlotLease lease, const Work& work, BatchDone done);
  Status CopyIn(const Slot& slot, const Work& work) EXCLUDES(copies_mu_);
  Status Compute(const Slot& slot, const Work& work, std::optional<int64_t>* computing_since_ns)
      EXCLUDES(engine_mu_);
  Status CopyOut(const Slot& slot, const Work& work) EXCLUDES(copies_mu_);
  Status RunEngine(const Slot& slot, const Work& work) REQUIRES(engine_mu_);
  RunPlan Plan(uint32_t rows) REQUIRES(engine_mu_);
  void ForgetRows() EXCLUDES(engine_mu_);
  void AddInputs(const Slot& slot, const Work& work) REQUIRES(copies_mu_);
  void AddOutputs(const Slot& slot, const Work& work) REQUIRES(copies_mu_);
  void AddSources(const Slot& slot, const Route& route) REQUIRES(copies_mu_);
  void AddTargets(const Slot& slot, const Work& work) REQUIRES(copies_mu_);
  void AddDeviceCopy(const Copy& copy, int to_device, int from_device) REQUIRES(copies_mu_);
  void ClearCopies() REQUIRES(copies_mu_);
  Status IssueCopies(CopyKind host_kind, Stream stream, std::string_view what) REQUIRES(copies_mu_);
  Status Issue(const std::vector<Copy>& copies, CopyKind kind, Stream stream,
               std::string_view what);
  Status Run(const Slot& slot, const RunPlan& plan);
  void MarkEnds(const Slot& slot);
  Status Check(Error error, std::string_view what);

  // Constant after construction.
  const LaneEnvironment env_;
  const Status no_memory_;  // made while there is some
  OwnedStream copy_in_, compute_, copy_out_;
  std::vector<std::unique_ptr<Slot>> slots_;
  std::unique_ptr<GraphCache> graphs_;
  std::vector<std::unique_ptr<DeviceContext>> contexts_;  // for each slot, to run without a graph

  // What a stream is given of a batch it is given as one; no thread has both.
  Mutex engine_mu_;
  // Guarded by engine_mu_.
  std::optional<SteadyRows> steady_rows_
      GUARDED_BY(engine_mu_);  // of an engine that pays for others

  Mutex copies_mu_;
  // Guarded by copies_mu_. A batch's copies in one direction; kept for their capacity.
  std::vector<Copy> host_copies_ GUARDED_BY(copies_mu_);    // from or to the host
  std::vector<Copy> device_copies_ GUARDED_BY(copies_mu_);  // on this device
  std::vector<PeerCopy> peer_copies_ GUARDED_BY(copies_mu_);
  std::vector<size_t> filled_ GUARDED_BY(copies_mu_);  // bytes of each input that a route brings
};

}  // namespace penstock::gpu
