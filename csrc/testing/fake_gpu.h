// FakeGpu: a GPU's runtime in this process, for tests of what is built on gpu::Api.
//
// A stream is a thread, device memory is memory, and a copy happens on its stream's thread when its
// turn comes: what is read too early is wrong, ThreadSanitizer sees two streams that touch the same
// bytes in no order, AddressSanitizer sees a copy beyond a block. races() finds unordered accesses
// without luck. Faults come where a test puts them.

#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "gpu/gpu_api.h"
#include "testing/fake_stream.h"
#include "testing/race_checker.h"

namespace penstock {

struct FakeGpuOptions {
  uint64_t seed = 1;
  int max_yields = 0;  // latency of a copy or kernel, in yields of its thread
  int devices = 1;
  size_t memory_bytes = size_t{256} << 20;
  size_t graph_bytes_per_work = 0;  // what an instantiated graph holds of the device's memory
  std::string name = "Fake GPU";
};

// Threading: thread-safe. Its one lock orders the host's threads among each other, which CUDA's
// would not: races between those are for clang's annotations to find.
// Ownership: what was not given back when it goes is freed with it.
// Blocking: as gpu::Api, and DestroyStream, until the stream is through, which a held one never is.
class FakeGpu final : public gpu::Api {
 public:
  explicit FakeGpu(const FakeGpuOptions& options = {});
  ~FakeGpu() override;

  // -- what a test may do to it
  // The nth call from now (1 = the next) of that name, or of any where it is empty, fails.
  void FailCall(std::string_view name, int nth, gpu::Error error);
  // The nth copy or kernel that runs from now on (1 = the next) is a sticky error in its place.
  void FaultWork(int nth, gpu::Error error);
  // The nth StreamWaitEvent from now on is forgotten.
  void DropWait(int nth);
  // The next copy that is enqueued calls this first, on its stream's thread.
  void DelayNextCopy(std::function<void()> delay);
  // No memory of other processes can be opened on this device from now on.
  void RefuseIpcOn(int device);
  // Streams stop before what comes next; and go on.
  void HoldStreams();
  void ReleaseStreams();

  // -- what a test may ask
  std::vector<std::string> races() const;
  int waits() const;                     // calls of StreamWaitEvent
  int calls() const;                     // calls that FailCall counts
  int pageable_copies() const;           // copies from or to host memory that is not pinned
  int copies(gpu::CopyKind kind) const;  // that were enqueued
  int copies_to_registered() const;      // from a device to host memory that RegisterHost was given
  int peer_copies() const;
  size_t live_objects() const;  // streams, events, graphs and blocks of memory not given back
  size_t live_bytes() const;    // of device memory, graphs included
  bool IsOnDevice(const void* data) const;

  // A kernel. Enqueued, or captured where the stream is being captured.
  gpu::Error Launch(gpu::Stream stream, FakeWork work);

  // -- gpu::Api
  gpu::Error DeviceCount(int* count) override;
  gpu::Error GetProperties(int device, gpu::DeviceProperties* properties) override;
  gpu::Error SetDevice(int device) override;
  gpu::Error MemoryInfo(size_t* free_bytes, size_t* total_bytes) override;
  std::string_view ErrorName(gpu::Error error) const override;
  gpu::Error TakeLastError() override;
  gpu::Error CreateStream(gpu::Stream* stream) override;
  gpu::Error DestroyStream(gpu::Stream stream) override;
  gpu::Error SynchronizeStream(gpu::Stream stream) override;
  gpu::Error StreamWaitEvent(gpu::Stream stream, gpu::Event event) override;
  gpu::Error CreateEvent(gpu::Event* event) override;
  gpu::Error DestroyEvent(gpu::Event event) override;
  gpu::Error RecordEvent(gpu::Event event, gpu::Stream stream) override;
  gpu::Error QueryEvent(gpu::Event event) override;
  gpu::Error AllocatePinned(size_t size_bytes, void** data) override;
  gpu::Error FreePinned(void* data) override;
  gpu::Error RegisterHost(void* data, size_t size_bytes) override;
  gpu::Error UnregisterHost(void* data) override;
  gpu::Error AllocateAsync(size_t size_bytes, gpu::Stream stream, void** data) override;
  gpu::Error FreeAsync(void* data, gpu::Stream stream) override;
  // A handle is the key of an object of POSIX shared memory, then zeros: such an object is the
  // device memory of another process.
  gpu::Error OpenIpcMemory(const gpu::IpcHandle& handle, void** data, size_t* size_bytes) override;
  gpu::Error CloseIpcMemory(void* data) override;
  gpu::Error CopyAsync(const gpu::Copy& copy, gpu::CopyKind kind, gpu::Stream stream) override;
  gpu::Error CopyPeerAsync(const gpu::Copy& copy, int to_device, int from_device,
                           gpu::Stream stream) override;
  gpu::Error CopyBatchAsync(std::span<const gpu::Copy> copies, gpu::CopyKind kind,
                            gpu::Stream stream) override;
  gpu::Error BeginCapture(gpu::Stream stream) override;
  gpu::Error EndCapture(gpu::Stream stream, gpu::Graph* graph) override;
  gpu::Error Instantiate(gpu::Graph graph, gpu::GraphExec* exec) override;
  gpu::Error LaunchGraph(gpu::GraphExec exec, gpu::Stream stream) override;
  gpu::Error DestroyGraph(gpu::Graph graph) override;
  gpu::Error DestroyGraphExec(gpu::GraphExec exec) override;

 private:
  enum class Memory { kDevice, kPinned, kRegistered, kImported };
  struct Block {
    size_t size_bytes;
    Memory kind;
    int device = kHost;
  };
  static constexpr int kHost = -1;
  struct StreamState {
    std::unique_ptr<FakeStream> stream;
    size_t id;
    int device = 0;
    bool is_capturing = false, is_invalid = false;
    std::thread::id capturer = {};
    std::vector<FakeWork> captured = {};
  };
  struct EventState {
    FakeRecord* last = nullptr;
  };

  gpu::Error Enter(std::string_view call) REQUIRES(mu_);
  gpu::Error Fault() const;
  static int CurrentDevice();  // this thread's
  // Enter, and what a thread that captures must not do.
  gpu::Error EnterUnsafe(std::string_view call) REQUIRES(mu_);
  gpu::Error Answer(gpu::Error error) const;  // that, and the thread's last error
  template <typename Handle>
  Handle MakeHandle() REQUIRES(mu_) {
    // NOLINTNEXTLINE(performance-no-int-to-ptr): a handle points to nothing
    return reinterpret_cast<Handle>(next_handle_++);
  }
  StreamState* Find(gpu::Stream stream) REQUIRES(mu_);
  EventState* Find(gpu::Event event) REQUIRES(mu_);
  gpu::Error Allocate(const Block& block, void** data) REQUIRES(mu_);
  gpu::Error Forget(void* data, Memory kind) REQUIRES(mu_);
  static void Free(void* data, const Block& block);
  // What all of that lies in; null: nothing.
  const Block* FindBlock(const void* data, size_t size_bytes) const REQUIRES(mu_);
  // The device whose memory all of that is, or kHost; nullopt: none's, and not pinned.
  std::optional<int> HolderOf(const void* data, size_t size_bytes) const REQUIRES(mu_);
  bool Overlaps(const void* data, size_t size_bytes) const REQUIRES(mu_);
  gpu::Error CheckCopy(const gpu::Copy& copy, gpu::CopyKind kind, gpu::Stream stream) REQUIRES(mu_);
  FakeWork MakeCopy(const gpu::Copy& copy) REQUIRES(mu_);
  gpu::Error Enqueue(gpu::Stream stream, FakeWork work) REQUIRES(mu_);
  void Run(StreamState& stream, const FakeWork& work) REQUIRES(mu_);
  gpu::Error AwaitRecord(FakeRecord& record) EXCLUDES(mu_);

  // Constant after construction.
  const FakeGpuOptions options_;

  FakeDeviceState state_;  // own synchronisation

  mutable Mutex mu_;  // the host's threads take it, streams' never
  // Guarded by mu_.
  std::deque<FakeRecord> records_ GUARDED_BY(mu_);  // kept: a stream may have them in front of it
  std::map<gpu::Stream, StreamState> streams_ GUARDED_BY(mu_);
  std::map<gpu::Event, EventState> events_ GUARDED_BY(mu_);
  std::map<gpu::Graph, std::vector<FakeWork>> graphs_ GUARDED_BY(mu_);
  std::map<gpu::GraphExec, std::vector<FakeWork>> execs_ GUARDED_BY(mu_);
  std::map<uintptr_t, Block> blocks_ GUARDED_BY(mu_);
  RaceChecker checker_ GUARDED_BY(mu_);
  std::string failing_call_ GUARDED_BY(mu_);
  int calls_to_failure_ GUARDED_BY(mu_) = 0;
  gpu::Error failure_ GUARDED_BY(mu_) = gpu::Error::kSuccess;
  int waits_to_drop_ GUARDED_BY(mu_) = 0;
  std::function<void()> delay_ GUARDED_BY(mu_);
  int refusing_device_ GUARDED_BY(mu_) = kHost;
  int waits_ GUARDED_BY(mu_) = 0;
  int calls_ GUARDED_BY(mu_) = 0;
  int pageable_copies_ GUARDED_BY(mu_) = 0;
  std::map<gpu::CopyKind, int> copies_ GUARDED_BY(mu_);
  int copies_to_registered_ GUARDED_BY(mu_) = 0;
  int peer_copies_ GUARDED_BY(mu_) = 0;
  size_t live_bytes_ GUARDED_BY(mu_) = 0;    // the pool's included
  size_t pooled_bytes_ GUARDED_BY(mu_) = 0;  // freed, and kept until a stream is waited for
  uintptr_t next_handle_ GUARDED_BY(mu_) = 1;
};

}  // namespace penstock
