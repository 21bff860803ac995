#include "gpu/lane.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "base/leave_to_process.h"
#include "base/strcat.h"

namespace penstock::gpu {
namespace {

// Where each tensor begins in a slab, inputs first, and behind the last one the slab's size.
// INVALID_ARGUMENT where that is more than a size can say.
Result<std::vector<size_t>> Layout(const DeviceEngine& engine) {
  std::vector<size_t> offsets = {0};
  for (const auto* tensors : {&engine.inputs(), &engine.outputs()}) {
    for (const DeviceTensor& tensor : *tensors) {
      size_t bytes = 0;
      size_t end = 0;
      if (__builtin_mul_overflow(tensor.row_bytes, engine.max_rows(), &bytes) ||
          __builtin_add_overflow(offsets.back(), bytes, &end) ||
          __builtin_add_overflow(end, PinnedPool::kAlignment - 1, &end)) {
        return InvalidArgument(StrCat(engine.name(), ": tensor '", tensor.name, "' of ",
                                      engine.max_rows(), " rows of ", tensor.row_bytes,
                                      " bytes is too large"));
      }
      offsets.push_back(end / PinnedPool::kAlignment * PinnedPool::kAlignment);
    }
  }
  return offsets;
}

Bindings Bind(const DeviceEngine& engine, void* slab, const std::vector<size_t>& offsets) {
  Bindings bindings;
  const size_t inputs = engine.inputs().size();
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    auto& list = i < inputs ? bindings.inputs : bindings.outputs;
    list.push_back(static_cast<uint8_t*>(slab) + offsets[i]);
  }
  return bindings;
}

struct Remains {
  std::unique_ptr<GraphCache> graphs;
  std::vector<std::unique_ptr<DeviceContext>> contexts;
  std::vector<std::vector<std::shared_ptr<const void>>> held;  // by slot
};

}  // namespace

Result<size_t> SlotBytes(const DeviceEngine& engine) {
  PENSTOCK_ASSIGN_OR_RETURN(const auto offsets, Layout(engine));
  return offsets.back();
}

Lane::Lane(const LaneEnvironment& environment)
    : env_(environment),
      no_memory_(ResourceExhausted(
          StrCat(environment.engine.name(), ": the host has no memory to enqueue a batch"))) {
  if (env_.engine.row_changes_cost()) steady_rows_.emplace(env_.table);
}

Result<std::unique_ptr<Lane>> Lane::Create(const LaneEnvironment& environment, size_t slots) {
  std::unique_ptr<Lane> lane(new Lane(environment));
  PENSTOCK_ASSIGN_OR_RETURN(const auto offsets, Layout(environment.engine));
  const size_t slab_bytes = offsets.back();
  if (slab_bytes == 0) return InvalidArgument(StrCat(environment.engine.name(), " has no tensors"));
  PENSTOCK_RETURN_IF_ERROR(lane->CreateStreams());
  for (size_t i = 0; i < slots; ++i) PENSTOCK_RETURN_IF_ERROR(lane->AddSlot(slab_bytes, offsets));
  lane->graphs_ = std::make_unique<GraphCache>(environment.api, environment.health,
                                               environment.engine, environment.graph_budget);
  return lane;
}

// Slots come back when their batches are over; a load that failed on its way waited for nothing. Of
// a lost device nobody knows what it still reads and writes, and to ask might take for ever; so
// might the destructors of graphs and engines, which wait for what they still run.
Lane::~Lane() {
  AwaitStreams();
  if (!env_.health.is_faulted()) {
    contexts_.clear();
    graphs_.reset();
    slots_.clear();
    AwaitStreams();  // the device's pool gives back what was freed: others have the device, too
    return;
  }
  Remains remains{std::move(graphs_), std::move(contexts_), {}};
  for (auto& slot : slots_) {
    slot->device.Abandon();
    remains.held.push_back(std::move(slot->held));
  }
  LeaveToTheProcess(std::move(remains));
}

void Lane::AwaitStreams() {
  for (const OwnedStream* stream : {&copy_in_, &compute_, &copy_out_}) {
    if (stream->get() == nullptr || env_.health.is_faulted()) continue;
    static_cast<void>(Check(env_.api.SynchronizeStream(stream->get()), "end a lane"));
  }
}

Status Lane::Check(Error error, std::string_view what) {
  return error == Error::kSuccess
             ? Status::Ok()
             : env_.health.Check(error, StrCat(what, " of ", env_.engine.name()));
}

Status Lane::CreateStreams() {
  PENSTOCK_ASSIGN_OR_RETURN(const Stream engines, env_.engine.ComputeStream());
  compute_ = OwnedStream::Borrowed(engines);
  for (OwnedStream* stream : {&copy_in_, &compute_, &copy_out_}) {
    if (stream->get() != nullptr) continue;
    Stream handle = nullptr;
    PENSTOCK_RETURN_IF_ERROR(Check(env_.api.CreateStream(&handle), "create a stream for a lane"));
    *stream = OwnedStream(env_.api, handle);
  }
  return Status::Ok();
}

Result<OwnedEvent> Lane::MakeEvent() {
  Event event = nullptr;
  PENSTOCK_RETURN_IF_ERROR(Check(env_.api.CreateEvent(&event), "create an event for a lane"));
  return OwnedEvent(env_.api, event);
}

Status Lane::AddSlot(size_t slab_bytes, const std::vector<size_t>& offsets) {
  // The lane's from the beginning: whatever fails, its memory goes when the streams are through.
  Slot& slot = *slots_.emplace_back(std::make_unique<Slot>());
  slot.lane = this;
  slot.index = slots_.size() - 1;
  PENSTOCK_ASSIGN_OR_RETURN(slot.pinned, env_.pool.TryAcquire(slab_bytes));
  void* data = nullptr;
  PENSTOCK_RETURN_IF_ERROR(Check(env_.api.AllocateAsync(slab_bytes, compute_.get(), &data),
                                 StrCat("allocate ", slab_bytes, " bytes for a lane")));
  slot.device = DeviceMemory(env_.api, compute_.get(), data);
  slot.host_bindings = Bind(env_.engine, slot.pinned.data(), offsets);
  slot.bindings = Bind(env_.engine, data, offsets);
  for (size_t i = 0; i < env_.engine.inputs().size(); ++i) {
    if (!env_.engine.inputs()[i].stays_on_host) continue;
    slot.bindings.inputs[i] = slot.host_bindings.inputs[i];
  }
  for (OwnedEvent* event : {&slot.copied_in, &slot.computed, &slot.copied_out}) {
    PENSTOCK_ASSIGN_OR_RETURN(*event, MakeEvent());
  }
  PENSTOCK_RETURN_IF_ERROR(ClearInputs(slot, slab_bytes));
  PENSTOCK_ASSIGN_OR_RETURN(
      auto context,
      env_.engine.CreateContext(slot.bindings, DeviceEngine::kAnyRows, compute_.get()));
  contexts_.push_back(std::move(context));
  return Check(env_.api.SynchronizeStream(compute_.get()), "prepare a lane");
}

// Rows that only pad a batch are zeros, or were rows of a batch before: never what lay in memory.
Status Lane::ClearInputs(Slot& slot, size_t slab_bytes) {
  std::memset(slot.pinned.data(), 0, slab_bytes);
  const Copy copy{slot.device.data(), slot.pinned.data(), slab_bytes};
  PENSTOCK_RETURN_IF_ERROR(
      Check(env_.api.CopyAsync(copy, CopyKind::kHostToDevice, compute_.get()), "clear the inputs"));
  return Check(env_.api.SynchronizeStream(compute_.get()), "clear the inputs");
}

Status Lane::Capture(size_t bucket) {
  for (const auto& slot : slots_) {
    const uint32_t rows = env_.table.buckets()[bucket].rows;
    PENSTOCK_RETURN_IF_ERROR(graphs_->Capture(*slot, bucket, rows, compute_.get()));
  }
  return Status::Ok();
}

void Lane::Drop(size_t bucket) { graphs_->Drop(bucket); }

Result<int64_t> Lane::Measure(const RunPlan& plan, size_t runs) {
  assert(runs > 0);
  std::vector<int64_t> times_ns;
  for (size_t i = 0; i < runs; ++i) {
    const int64_t start_ns = env_.clock.NowNs();
    PENSTOCK_RETURN_IF_ERROR(Run(*slots_.front(), plan));
    PENSTOCK_RETURN_IF_ERROR(Check(env_.api.SynchronizeStream(compute_.get()), "time a batch"));
    times_ns.push_back(env_.clock.NowNs() - start_ns);
  }
  const auto median = times_ns.begin() + static_cast<ptrdiff_t>(runs / 2);
  std::nth_element(times_ns.begin(), median, times_ns.end());
  return *median;
}

Status Lane::Settle() {
  PENSTOCK_RETURN_IF_ERROR(
      Check(env_.api.SynchronizeStream(compute_.get()), "finish the preparation"));
  graphs_->DropUnfinished();
  return Status::Ok();
}

void Lane::Submit(SlotLease lease, uint32_t rows, BatchDone done, Route* route) {
  Start(std::move(lease), {rows, nullptr, route}, std::move(done));
}

void Lane::SubmitShaped(SlotLease lease, ShapedBatch& batch, BatchDone done, Route* route) {
  Start(std::move(lease), {batch.rows, &batch, route}, std::move(done));
}

size_t Lane::InputBytes(const Work& work, size_t input) const {
  return work.shaped != nullptr ? work.shaped->input_bytes[input]
                                : work.rows * env_.engine.inputs()[input].row_bytes;
}

size_t Lane::OutputBytes(const Work& work, size_t output) const {
  return work.shaped != nullptr ? work.shaped->output_bytes[output]
                                : work.rows * env_.engine.outputs()[output].row_bytes;
}

size_t Lane::OutputRowBytes(const Work& work, size_t output) const {
  return OutputBytes(work, output) / work.rows;
}

Status Lane::CheckBatch(const Work& work) const {
  PENSTOCK_RETURN_IF_ERROR(env_.health.fault());
  if (work.rows == 0 || work.rows > env_.engine.max_rows()) {
    return InvalidArgument(StrCat(env_.engine.name(), ": a batch has ", work.rows,
                                  " rows, expected 1 to ", env_.engine.max_rows()));
  }
  if (work.shaped != nullptr) PENSTOCK_RETURN_IF_ERROR(CheckShapes(work));
  return work.route == nullptr ? Status::Ok() : CheckRoute(work);
}

Status Lane::CheckShapes(const Work& work) const {
  const auto& tensors = env_.engine.inputs();
  const auto& sizes = work.shaped->input_bytes;
  if (sizes.size() != tensors.size()) {
    return InvalidArgument(StrCat(env_.engine.name(), ": a batch has ", sizes.size(),
                                  " inputs, expected ", tensors.size()));
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    const size_t room = tensors[i].row_bytes * env_.engine.max_rows();
    if (sizes[i] > room) {
      return InvalidArgument(StrCat(env_.engine.name(), ": input '", tensors[i].name, "' has ",
                                    sizes[i], " bytes, expected at most ", room));
    }
  }
  return Status::Ok();
}

// A part of an input would be what another batch left in the slot.
Status Lane::CheckRoute(const Work& work) const {
  const auto& tensors = env_.engine.inputs();
  for (const InputSegment& segment : work.route->inputs) {
    const bool is_there = segment.tensor < tensors.size() && segment.from != nullptr;
    const bool is_near =
        is_there && (segment.device == kHostMemory || !tensors[segment.tensor].stays_on_host);
    if (is_near) continue;
    return Internal(StrCat(env_.engine.name(), ": a batch's bytes are for input ", segment.tensor,
                           " of ", tensors.size(), ", or ",
                           is_there ? "not in the host's memory, where it stays" : "nowhere"));
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    size_t routed_bytes = 0;
    for (const InputSegment& segment : work.route->inputs) {
      if (segment.tensor == i) routed_bytes += segment.size_bytes;
    }
    const size_t expected = InputBytes(work, i);
    if (routed_bytes == 0 || routed_bytes == expected) continue;
    return Internal(StrCat(env_.engine.name(), ": input '", tensors[i].name, "' is given ",
                           routed_bytes, " bytes, expected ", expected));
  }
  const size_t outputs = env_.engine.outputs().size();
  for (const OutputSegment& segment : work.route->outputs) {
    if (segment.tensor < outputs && segment.first_row <= work.rows &&
        segment.rows <= work.rows - segment.first_row) {
      continue;
    }
    return Internal(StrCat(env_.engine.name(), ": rows ", segment.first_row, " to ",
                           segment.first_row + segment.rows, " of output ", segment.tensor,
                           " are none of ", work.rows, " rows of ", outputs, " outputs"));
  }
  return Status::Ok();
}

void Lane::Start(SlotLease lease, const Work& work, BatchDone done) {
  assert(lease && lease.slot().lane == this);
  if (const Status refused = CheckBatch(work); !refused.ok()) {
    done(refused, std::move(lease));
    return;
  }
  Slot* const slot = &lease.slot();
  // Whatever takes memory comes before the slot is let go of: from there on it is the batch's.
  CompletionThread::Entry entry(1);
  InFlight& in_flight = entry.front().in_flight;
  in_flight.done = [this, slot, done = std::move(done)](const Status& status) {
    // Of a lost device nobody knows whether it still reads and writes there.
    if (!slot->held.empty() && !env_.health.is_faulted()) slot->held.clear();
    done(status, SlotLease(env_.free, slot));
  };
  lease.Release();
  if (work.route != nullptr) slot->held.swap(work.route->held);
  in_flight.events = {slot->copied_out.get()};
  in_flight.computing = {&env_.counters.busy(), slot->copied_in.get(), slot->computed.get()};
  try {
    in_flight.status = CopyIn(*slot, work);
    if (in_flight.status.ok()) {
      in_flight.status = Compute(*slot, work, &in_flight.computing.since_ns);
    }
    if (in_flight.status.ok()) in_flight.status = CopyOut(*slot, work);
  } catch (const std::bad_alloc&) {
    ForgetRows();
    in_flight.status = no_memory_;
  }
  if (!in_flight.status.ok()) {
    MarkEnds(*slot);
    in_flight.events = {slot->copied_in.get(), slot->computed.get(), slot->copied_out.get()};
  }
  // The batch may be over at once, its slot back and the lane gone: nothing of it is touched then.
  env_.completion.Watch(std::move(entry));
}

Status Lane::CopyIn(const Slot& slot, const Work& work) {
  MutexLock lock(copies_mu_);
  AddInputs(slot, work);
  PENSTOCK_RETURN_IF_ERROR(IssueCopies(CopyKind::kHostToDevice, copy_in_.get(), "copy the inputs"));
  return Check(env_.api.RecordEvent(slot.copied_in.get(), copy_in_.get()), "record an event");
}

Status Lane::Compute(const Slot& slot, const Work& work,
                     std::optional<int64_t>* computing_since_ns) {
  MutexLock lock(engine_mu_);
  PENSTOCK_RETURN_IF_ERROR(
      Check(env_.api.StreamWaitEvent(compute_.get(), slot.copied_in.get()), "wait for an input"));
  // A launch-bound engine computes while it is still enqueuing.
  *computing_since_ns = env_.clock.NowNs();
  PENSTOCK_RETURN_IF_ERROR(RunEngine(slot, work));
  return Check(env_.api.RecordEvent(slot.computed.get(), compute_.get()), "record an event");
}

Status Lane::CopyOut(const Slot& slot, const Work& work) {
  MutexLock lock(copies_mu_);
  AddOutputs(slot, work);
  PENSTOCK_RETURN_IF_ERROR(
      Check(env_.api.StreamWaitEvent(copy_out_.get(), slot.computed.get()), "wait for an output"));
  PENSTOCK_RETURN_IF_ERROR(
      IssueCopies(CopyKind::kDeviceToHost, copy_out_.get(), "copy the outputs"));
  return Check(env_.api.RecordEvent(slot.copied_out.get(), copy_out_.get()), "record an event");
}

Status Lane::RunEngine(const Slot& slot, const Work& work) {
  if (work.shaped != nullptr) {
    PENSTOCK_RETURN_IF_ERROR(env_.health.CheckEngine(
        contexts_[slot.index]->EnqueueShaped(compute_.get(), *work.shaped), "enqueue a batch"));
    env_.counters.Add(work.rows, RunPlan{work.rows});
    return Status::Ok();
  }
  const uint32_t before = steady_rows_ ? steady_rows_->size() : 0;
  const RunPlan plan = Plan(work.rows);
  Status ran = Run(slot, plan);
  if (!ran.ok()) {
    if (steady_rows_) steady_rows_->Forget();
    return ran;
  }
  env_.counters.Add(work.rows, plan);
  if (steady_rows_ && steady_rows_->size() != before) env_.counters.AddRowChange();
  return Status::Ok();
}

// After a run of which nobody knows how far it came.
void Lane::ForgetRows() {
  MutexLock lock(engine_mu_);
  if (steady_rows_) steady_rows_->Forget();
}

// Only the batch's own rows are copied in and out: behind them lies what ClearInputs says.
RunPlan Lane::Plan(uint32_t rows) {
  RunPlan plan = env_.table.Choose(rows);
  if (!steady_rows_ || plan.bucket) return plan;
  plan.rows = steady_rows_->Choose(rows);
  return plan;
}

Status Lane::Run(const Slot& slot, const RunPlan& plan) {
  if (plan.bucket) {
    return Check(env_.api.LaunchGraph(graphs_->Find(slot, *plan.bucket), compute_.get()),
                 "launch a graph");
  }
  DeviceContext& context = *contexts_[slot.index];
  return env_.health.CheckEngine(context.Enqueue(compute_.get(), plan.rows), "enqueue a batch");
}

void Lane::AddInputs(const Slot& slot, const Work& work) {
  ClearCopies();
  const size_t inputs = env_.engine.inputs().size();
  if (work.route != nullptr) AddSources(slot, *work.route);
  for (size_t i = 0; i < inputs; ++i) {
    const size_t size_bytes = InputBytes(work, i);
    if (size_bytes == 0 || env_.engine.inputs()[i].stays_on_host) continue;
    if (work.route != nullptr && filled_[i] > 0) continue;
    host_copies_.push_back({slot.bindings.inputs[i], slot.host_bindings.inputs[i], size_bytes});
  }
}

void Lane::AddSources(const Slot& slot, const Route& route) {
  filled_.assign(env_.engine.inputs().size(), 0);
  for (const InputSegment& segment : route.inputs) {
    if (segment.size_bytes == 0) continue;
    auto* begin = static_cast<uint8_t*>(slot.bindings.inputs[segment.tensor]);
    const Copy copy{begin + filled_[segment.tensor], segment.from, segment.size_bytes};
    filled_[segment.tensor] += segment.size_bytes;
    if (env_.engine.inputs()[segment.tensor].stays_on_host) {
      if (copy.to != copy.from) std::memcpy(copy.to, copy.from, copy.size_bytes);
    } else if (segment.device == kHostMemory) {
      host_copies_.push_back(copy);
    } else {
      AddDeviceCopy(copy, env_.device, segment.device);
    }
  }
}

void Lane::AddOutputs(const Slot& slot, const Work& work) {
  ClearCopies();
  for (size_t i = 0; i < env_.engine.outputs().size(); ++i) {
    const size_t size_bytes = OutputBytes(work, i);
    const bool is_read = work.route == nullptr ||
                         std::find(work.route->unread.begin(), work.route->unread.end(), i) ==
                             work.route->unread.end();
    if (size_bytes == 0 || !is_read) continue;
    host_copies_.push_back({slot.host_bindings.outputs[i], slot.bindings.outputs[i], size_bytes});
  }
  if (work.route != nullptr) AddTargets(slot, work);
}

void Lane::AddTargets(const Slot& slot, const Work& work) {
  for (const OutputSegment& segment : work.route->outputs) {
    const size_t row_bytes = OutputRowBytes(work, segment.tensor);
    const size_t size_bytes = segment.rows * row_bytes;
    if (size_bytes == 0 || size_bytes > segment.room_bytes) continue;
    const auto* begin = static_cast<const uint8_t*>(slot.bindings.outputs[segment.tensor]);
    const Copy copy{segment.to, begin + segment.first_row * row_bytes, size_bytes};
    if (segment.device == kHostMemory) {
      host_copies_.push_back(copy);
    } else {
      AddDeviceCopy(copy, segment.device, env_.device);
    }
  }
}

void Lane::AddDeviceCopy(const Copy& copy, int to_device, int from_device) {
  if (to_device == from_device) {
    device_copies_.push_back(copy);
  } else {
    peer_copies_.push_back({copy, to_device, from_device});
  }
}

void Lane::ClearCopies() {
  host_copies_.clear();
  device_copies_.clear();
  peer_copies_.clear();
}

Status Lane::IssueCopies(CopyKind host_kind, Stream stream, std::string_view what) {
  PENSTOCK_RETURN_IF_ERROR(Issue(host_copies_, host_kind, stream, what));
  PENSTOCK_RETURN_IF_ERROR(Issue(device_copies_, CopyKind::kDeviceToDevice, stream, what));
  for (const PeerCopy& each : peer_copies_) {
    PENSTOCK_RETURN_IF_ERROR(
        Check(env_.api.CopyPeerAsync(each.copy, each.to_device, each.from_device, stream), what));
  }
  return Status::Ok();
}

Status Lane::Issue(const std::vector<Copy>& copies, CopyKind kind, Stream stream,
                   std::string_view what) {
  if (copies.empty()) return Status::Ok();
  const Error error = copies.size() == 1 ? env_.api.CopyAsync(copies.front(), kind, stream)
                                         : env_.api.CopyBatchAsync(copies, kind, stream);
  return Check(error, what);
}

// Behind what was enqueued of a batch that failed: its memory is in use until then.
void Lane::MarkEnds(const Slot& slot) {
  const std::pair<Event, Stream> ends[] = {{slot.copied_in.get(), copy_in_.get()},
                                           {slot.computed.get(), compute_.get()},
                                           {slot.copied_out.get(), copy_out_.get()}};
  for (const auto& [event, stream] : ends) {
    const Status marked = Check(env_.api.RecordEvent(event, stream), "record an event");
    if (!marked.ok() && !env_.health.is_faulted()) env_.health.Fault(marked.message());
  }
}

}  // namespace penstock::gpu
