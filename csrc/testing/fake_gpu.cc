#include "testing/fake_gpu.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/strcat.h"

namespace penstock {
namespace {

using gpu::Error;
using gpu::IsSticky;

thread_local Error t_last_error = Error::kSuccess;
thread_local int t_device = 0;
thread_local int t_captures = 0;  // streams that this thread is capturing

}  // namespace

FakeGpu::FakeGpu(const FakeGpuOptions& options) : options_(options) {
  t_last_error = Error::kSuccess;  // of another fake, as this
  t_device = 0;
}

FakeGpu::~FakeGpu() {
  ReleaseStreams();
  MutexLock lock(mu_);
  streams_.clear();
  // NOLINTNEXTLINE(performance-no-int-to-ptr): an address, as arithmetic needs it
  for (const auto& [address, block] : blocks_) Free(reinterpret_cast<void*>(address), block);
}

void FakeGpu::FailCall(std::string_view name, int nth, Error error) {
  MutexLock lock(mu_);
  failing_call_ = name;
  calls_to_failure_ = nth;
  failure_ = error;
}

void FakeGpu::FaultWork(int nth, Error error) {
  state_.fault_to_come.store(static_cast<int>(error));
  state_.work_left.store(nth - 1);
}

void FakeGpu::DropWait(int nth) {
  MutexLock lock(mu_);
  waits_to_drop_ = nth;
}

void FakeGpu::DelayNextCopy(std::function<void()> delay) {
  MutexLock lock(mu_);
  delay_ = std::move(delay);
}

void FakeGpu::HoldStreams() { state_.is_held.store(true); }

void FakeGpu::ReleaseStreams() {
  MutexLock lock(state_.hold_mu);
  state_.is_held.store(false);
  state_.released.NotifyAll();
}

std::vector<std::string> FakeGpu::races() const {
  MutexLock lock(mu_);
  return checker_.races();
}

int FakeGpu::waits() const {
  MutexLock lock(mu_);
  return waits_;
}

int FakeGpu::calls() const {
  MutexLock lock(mu_);
  return calls_;
}

int FakeGpu::pageable_copies() const {
  MutexLock lock(mu_);
  return pageable_copies_;
}

int FakeGpu::copies(gpu::CopyKind kind) const {
  MutexLock lock(mu_);
  const auto found = copies_.find(kind);
  return found == copies_.end() ? 0 : found->second;
}

int FakeGpu::copies_to_registered() const {
  MutexLock lock(mu_);
  return copies_to_registered_;
}

int FakeGpu::peer_copies() const {
  MutexLock lock(mu_);
  return peer_copies_;
}

size_t FakeGpu::live_objects() const {
  MutexLock lock(mu_);
  return streams_.size() + events_.size() + graphs_.size() + execs_.size() + blocks_.size();
}

size_t FakeGpu::live_bytes() const {
  MutexLock lock(mu_);
  return live_bytes_;
}

Error FakeGpu::Fault() const {
  return static_cast<Error>(state_.fault.load(std::memory_order_relaxed));
}

Error FakeGpu::Answer(Error error) const {
  if (error != Error::kSuccess && error != Error::kNotReady) t_last_error = error;
  return error;
}

Error FakeGpu::Enter(std::string_view call) {
  ++calls_;
  const bool is_meant = failing_call_.empty() || failing_call_ == call;
  if (calls_to_failure_ > 0 && is_meant && --calls_to_failure_ == 0) {
    if (IsSticky(failure_)) state_.fault.store(static_cast<int>(failure_));
    t_last_error = failure_;  // kNotReady as well: CUDA remembers that one too
    return failure_;
  }
  return Answer(Fault());
}

Error FakeGpu::EnterUnsafe(std::string_view call) {
  if (t_captures == 0) return Enter(call);
  for (auto& [handle, stream] : streams_) {
    if (stream.is_capturing && stream.capturer == std::this_thread::get_id()) {
      stream.is_invalid = true;
    }
  }
  return Answer(Error::kStreamCaptureUnsupported);
}

FakeGpu::StreamState* FakeGpu::Find(gpu::Stream stream) {
  const auto found = streams_.find(stream);
  return found == streams_.end() ? nullptr : &found->second;
}

FakeGpu::EventState* FakeGpu::Find(gpu::Event event) {
  const auto found = events_.find(event);
  return found == events_.end() ? nullptr : &found->second;
}

// ---- devices

Error FakeGpu::DeviceCount(int* count) {
  if (options_.devices == 0) return Answer(Error::kNoDevice);
  *count = options_.devices;
  return Error::kSuccess;
}

Error FakeGpu::GetProperties(int device, gpu::DeviceProperties* properties) {
  if (device < 0 || device >= options_.devices) return Answer(Error::kInvalidDevice);
  *properties = {.name = options_.name, .compute_major = 9, .multiprocessors = 4};
  properties->uuid[15] = static_cast<uint8_t>(device);
  properties->memory_bytes = options_.memory_bytes;
  properties->pci_bus_id = StrCat("fa4e:0", device, ":00.0");  // where no machine has one
  return Error::kSuccess;
}

Error FakeGpu::SetDevice(int device) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  if (device < 0 || device >= options_.devices) return Answer(Error::kInvalidDevice);
  t_device = device;
  return Error::kSuccess;
}

int FakeGpu::CurrentDevice() { return t_device; }

Error FakeGpu::MemoryInfo(size_t* free_bytes, size_t* total_bytes) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  *free_bytes = options_.memory_bytes - live_bytes_;
  *total_bytes = options_.memory_bytes;
  return Error::kSuccess;
}

std::string_view FakeGpu::ErrorName(Error error) const {
  switch (error) {
    case Error::kSuccess:
      return "cudaSuccess";
    case Error::kMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case Error::kIllegalAddress:
      return "cudaErrorIllegalAddress";
    case Error::kLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "cudaError";
  }
}

Error FakeGpu::TakeLastError() {
  if (IsSticky(t_last_error)) return t_last_error;
  return std::exchange(t_last_error, Error::kSuccess);
}

// ---- streams and events

Error FakeGpu::CreateStream(gpu::Stream* stream) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  const size_t id = checker_.AddStream();
  const uint64_t seed = options_.seed * 1000 + id + 1;
  *stream = MakeHandle<gpu::Stream>();
  streams_.emplace(*stream, StreamState{.stream = std::make_unique<FakeStream>(state_, seed,
                                                                               options_.max_yields),
                                        .id = id,
                                        .device = t_device});
  return Error::kSuccess;
}

Error FakeGpu::DestroyStream(gpu::Stream stream) {
  StreamState gone;
  MutexLock lock(mu_);
  const Error error = Enter(__func__);
  if (error != Error::kSuccess && !IsSticky(error)) return error;
  if (Find(stream) == nullptr) return Answer(Error::kInvalidResourceHandle);
  gone = std::move(streams_.extract(stream).mapped());
  return error;
}

Error FakeGpu::SynchronizeStream(gpu::Stream stream) {
  FakeRecord* record = nullptr;
  {
    MutexLock lock(mu_);
    if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
    StreamState* found = Find(stream);
    if (found == nullptr) return Answer(Error::kInvalidResourceHandle);
    if (found->is_capturing) {
      found->is_invalid = true;
      return Answer(Error::kStreamCaptureUnsupported);
    }
    record = &records_.emplace_back();
    record->clock = checker_.Record(found->id);
    found->stream->PushSet(*record);
  }
  return AwaitRecord(*record);
}

Error FakeGpu::AwaitRecord(FakeRecord& record) {
  record.Wait();
  MutexLock lock(mu_);
  checker_.HostKnows(record.clock);
  live_bytes_ -= std::exchange(pooled_bytes_, 0);
  return Answer(Fault());
}

Error FakeGpu::StreamWaitEvent(gpu::Stream stream, gpu::Event event) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  StreamState* waiting = Find(stream);
  const EventState* awaited = Find(event);
  if (waiting == nullptr || awaited == nullptr) return Answer(Error::kInvalidResourceHandle);
  if (waiting->is_capturing) {
    waiting->is_invalid = true;
    return Answer(Error::kStreamCaptureUnsupported);
  }
  ++waits_;
  if (waits_to_drop_ > 0 && --waits_to_drop_ == 0) return Error::kSuccess;
  if (awaited->last == nullptr) return Error::kSuccess;
  checker_.Wait(waiting->id, awaited->last->clock);
  waiting->stream->PushWait(*awaited->last);
  return Error::kSuccess;
}

Error FakeGpu::CreateEvent(gpu::Event* event) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  *event = MakeHandle<gpu::Event>();
  events_.emplace(*event, EventState{});
  return Error::kSuccess;
}

Error FakeGpu::DestroyEvent(gpu::Event event) {
  MutexLock lock(mu_);
  const Error error = Enter(__func__);
  if (error != Error::kSuccess && !IsSticky(error)) return error;
  return events_.erase(event) == 1 ? error : Answer(Error::kInvalidResourceHandle);
}

Error FakeGpu::RecordEvent(gpu::Event event, gpu::Stream stream) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  StreamState* recorded = Find(stream);
  EventState* found = Find(event);
  if (recorded == nullptr || found == nullptr) return Answer(Error::kInvalidResourceHandle);
  if (recorded->is_capturing) {
    recorded->is_invalid = true;
    return Answer(Error::kStreamCaptureUnsupported);
  }
  found->last = &records_.emplace_back();
  found->last->clock = checker_.Record(recorded->id);
  recorded->stream->PushSet(*found->last);
  return Error::kSuccess;
}

Error FakeGpu::QueryEvent(gpu::Event event) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  const EventState* found = Find(event);
  if (found == nullptr) return Answer(Error::kInvalidResourceHandle);
  if (found->last == nullptr) return Error::kSuccess;
  if (!found->last->is_set()) return Error::kNotReady;
  checker_.HostKnows(found->last->clock);
  return Answer(Fault());  // looked at again: it may have come before the event
}

// ---- work

Error FakeGpu::Launch(gpu::Stream stream, FakeWork work) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  return Answer(Enqueue(stream, std::move(work)));
}

Error FakeGpu::Enqueue(gpu::Stream stream, FakeWork work) {
  StreamState* found = Find(stream);
  if (found == nullptr) return Error::kInvalidResourceHandle;
  if (found->is_capturing) {
    found->captured.push_back(std::move(work));
  } else {
    Run(*found, work);
  }
  return Error::kSuccess;
}

void FakeGpu::Run(StreamState& stream, const FakeWork& work) {
  checker_.Enqueue(stream.id, work.reads, work.writes);
  stream.stream->PushWork(work.run);
}

Error FakeGpu::CheckCopy(const gpu::Copy& copy, gpu::CopyKind kind, gpu::Stream stream) {
  const bool from_host = kind == gpu::CopyKind::kHostToDevice;
  const bool to_host = kind == gpu::CopyKind::kDeviceToHost;
  const StreamState* on = Find(stream);
  if (on == nullptr) return Error::kInvalidResourceHandle;
  const std::optional<int> from = HolderOf(copy.from, copy.size_bytes);
  const std::optional<int> to = HolderOf(copy.to, copy.size_bytes);
  if (!from_host && from != on->device) return Error::kInvalidValue;
  if (!to_host && to != on->device) return Error::kInvalidValue;
  if ((from_host && from != kHost) || (to_host && to != kHost)) ++pageable_copies_;
  ++copies_[kind];
  const Block* target = to_host ? FindBlock(copy.to, copy.size_bytes) : nullptr;
  if (target != nullptr && target->kind == Memory::kRegistered) ++copies_to_registered_;
  return Error::kSuccess;
}

FakeWork FakeGpu::MakeCopy(const gpu::Copy& copy) {
  FakeWork work;
  work.reads = {{copy.from, copy.size_bytes}};
  work.writes = {{copy.to, copy.size_bytes}};
  work.run = [copy, delay = std::exchange(delay_, nullptr)] {
    if (delay) delay();
    std::memcpy(copy.to, copy.from, copy.size_bytes);
    return Error::kSuccess;
  };
  return work;
}

Error FakeGpu::CopyAsync(const gpu::Copy& copy, gpu::CopyKind kind, gpu::Stream stream) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  const Error error = CheckCopy(copy, kind, stream);
  return Answer(error != Error::kSuccess ? error : Enqueue(stream, MakeCopy(copy)));
}

Error FakeGpu::CopyPeerAsync(const gpu::Copy& copy, int to_device, int from_device,
                             gpu::Stream stream) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  const bool fits = HolderOf(copy.from, copy.size_bytes) == from_device &&
                    HolderOf(copy.to, copy.size_bytes) == to_device && from_device >= 0 &&
                    to_device >= 0;
  if (!fits) return Answer(Error::kInvalidValue);
  ++peer_copies_;
  return Answer(Enqueue(stream, MakeCopy(copy)));
}

Error FakeGpu::CopyBatchAsync(std::span<const gpu::Copy> copies, gpu::CopyKind kind,
                              gpu::Stream stream) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  for (const gpu::Copy& copy : copies) {
    const Error error = CheckCopy(copy, kind, stream);
    if (error != Error::kSuccess) return Answer(error);
  }
  for (const gpu::Copy& copy : copies) {
    const Error error = Enqueue(stream, MakeCopy(copy));
    if (error != Error::kSuccess) return Answer(error);
  }
  return Error::kSuccess;
}

// ---- graphs

Error FakeGpu::BeginCapture(gpu::Stream stream) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  StreamState* found = Find(stream);
  if (found == nullptr) return Answer(Error::kInvalidResourceHandle);
  if (found->is_capturing) return Answer(Error::kStreamCaptureUnsupported);
  found->is_capturing = true;
  found->is_invalid = false;
  found->capturer = std::this_thread::get_id();
  ++t_captures;
  return Error::kSuccess;
}

Error FakeGpu::EndCapture(gpu::Stream stream, gpu::Graph* graph) {
  MutexLock lock(mu_);
  const Error error = Enter(__func__);
  StreamState* found = Find(stream);
  if (found == nullptr || !found->is_capturing) return Answer(Error::kInvalidResourceHandle);
  found->is_capturing = false;
  --t_captures;
  auto captured = std::exchange(found->captured, {});
  if (error != Error::kSuccess) return error;
  if (found->is_invalid) return Answer(Error::kStreamCaptureInvalidated);
  *graph = MakeHandle<gpu::Graph>();
  graphs_.emplace(*graph, std::move(captured));
  return Error::kSuccess;
}

Error FakeGpu::Instantiate(gpu::Graph graph, gpu::GraphExec* exec) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  const auto found = graphs_.find(graph);
  if (found == graphs_.end()) return Answer(Error::kInvalidResourceHandle);
  const size_t size_bytes = found->second.size() * options_.graph_bytes_per_work;
  if (size_bytes > options_.memory_bytes - live_bytes_) return Answer(Error::kMemoryAllocation);
  live_bytes_ += size_bytes;
  *exec = MakeHandle<gpu::GraphExec>();
  execs_.emplace(*exec, found->second);
  return Error::kSuccess;
}

Error FakeGpu::LaunchGraph(gpu::GraphExec exec, gpu::Stream stream) {
  MutexLock lock(mu_);
  if (const Error error = Enter(__func__); error != Error::kSuccess) return error;
  const auto found = execs_.find(exec);
  if (found == execs_.end()) return Answer(Error::kInvalidResourceHandle);
  for (const FakeWork& work : found->second) {
    const Error error = Enqueue(stream, work);
    if (error != Error::kSuccess) return Answer(error);
  }
  return Error::kSuccess;
}

Error FakeGpu::DestroyGraph(gpu::Graph graph) {
  MutexLock lock(mu_);
  const Error error = Enter(__func__);
  if (error != Error::kSuccess && !IsSticky(error)) return error;
  return graphs_.erase(graph) == 1 ? error : Answer(Error::kInvalidResourceHandle);
}

Error FakeGpu::DestroyGraphExec(gpu::GraphExec exec) {
  MutexLock lock(mu_);
  const Error error = Enter(__func__);
  if (error != Error::kSuccess && !IsSticky(error)) return error;
  const auto found = execs_.find(exec);
  if (found == execs_.end()) return Answer(Error::kInvalidResourceHandle);
  live_bytes_ -= found->second.size() * options_.graph_bytes_per_work;
  execs_.erase(found);
  return error;
}

}  // namespace penstock
