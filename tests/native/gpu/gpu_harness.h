// A fake device with all that lanes need, and a ledger of the batches that were given to it.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "gpu/device.h"
#include "gpu/lane_group.h"
#include "gpu/pinned_pool.h"
#include "tensor/buffer.h"
#include "testing/fake_gpu.h"
#include "testing/fake_gpu_engine.h"
#include "testing/quiet_log.h"
#include "testing/shm_object.h"

namespace penstock::gpu {

// A fake GPU, opened, with an engine on it.
struct FakeDevice {
  explicit FakeDevice(const FakeGpuOptions& gpu_options = {},
                      const FakeGpuEngineOptions& engine_options = {},
                      Clock& clock = Clock::System())
      : gpu(gpu_options),
        device(std::move(*Device::Open(gpu, clock, {}))),
        health(device->health()),
        pool(std::move(*PinnedPool::Create(gpu, health, /*block_bytes=*/16 << 10, kBlocks))),
        engine(gpu, engine_options) {}

  Result<std::unique_ptr<LaneGroup>> Load(const LaneGroupOptions& options = {}) {
    return LaneGroup::Load(device->resources(*pool), engine, options);
  }
  // Whether nobody holds a block of pinned memory.
  bool HasAllBlocks() {
    std::vector<Buffer> blocks;
    while (blocks.size() < kBlocks) {
      auto block = pool->TryAcquire(1);
      if (!block.ok()) return false;
      blocks.push_back(*std::move(block));
    }
    return true;
  }

  static constexpr size_t kBlocks = 16;

  FakeGpu gpu;
  std::unique_ptr<Device> device;
  DeviceHealth& health;
  std::unique_ptr<PinnedPool> pool;
  FakeGpuEngine engine;
};

// Memory of another process on a device, as a fake GPU has opened it; or, of kHostMemory, memory of this
// process that is registered.
// Ownership: borrows the GPU.
class ClientRoom {
 public:
  // Null where the GPU does not open or register it. The first device becomes this thread's.
  static std::shared_ptr<ClientRoom> TryMake(FakeGpu& gpu, size_t size_bytes, int device) {
    if (device == kHostMemory) {
      std::vector<uint8_t> own(size_bytes);
      void* data = own.data();
      if (gpu.RegisterHost(data, size_bytes) != Error::kSuccess) return nullptr;
      return std::make_shared<ClientRoom>(gpu, data, device, std::move(own));
    }
    const ShmObject object(size_bytes);
    IpcHandle handle{};
    const std::string name = object.IpcHandle();
    std::copy(name.begin(), name.end(), handle.begin());
    void* data = nullptr;
    size_t opened_bytes = 0;
    if (gpu.SetDevice(device) != Error::kSuccess) return nullptr;
    const Error opened = gpu.OpenIpcMemory(handle, &data, &opened_bytes);
    static_cast<void>(gpu.SetDevice(0));
    if (opened != Error::kSuccess) return nullptr;
    return std::make_shared<ClientRoom>(gpu, data, device);
  }
  ClientRoom(FakeGpu& gpu, void* data, int device, std::vector<uint8_t> own = {})
      : gpu_(gpu), device_(device), data_(static_cast<uint8_t*>(data)), own_(std::move(own)) {}
  ~ClientRoom() {
    static_cast<void>(device_ == kHostMemory ? gpu_.UnregisterHost(data_)
                                             : gpu_.CloseIpcMemory(data_));
  }
  ClientRoom(const ClientRoom&) = delete;
  ClientRoom& operator=(const ClientRoom&) = delete;

  uint8_t* data() const { return data_; }
  int device() const { return device_; }

 private:
  FakeGpu& gpu_;
  const int device_;
  uint8_t* const data_;
  const std::vector<uint8_t> own_;  // of registered memory
};

// Which of a batch's tensors lie in a room, one behind the other: x, b, y, n, each of max rows.
struct RoomUse {
  std::shared_ptr<ClientRoom> room;  // held by the batch; by who reads outputs there as well
  uint32_t host_rows = 0;            // the first rows of x and b are in pinned memory all the same
  bool has_outputs = true;           // y and n are written there
  bool is_read_on_host = true;       // and to pinned memory
};

// Fills batches, submits them, and holds each answer against what the engine must compute.
// Threading: thread-safe.
class Ledger {
 public:
  explicit Ledger(const FakeDevice& device) : Ledger(device.engine) {}
  // An engine that computes what FakeGpuEngine does, of at most 8 rows.
  explicit Ledger(const DeviceEngine& engine)
      : width_(engine.inputs()[0].row_bytes / sizeof(float)) {}

  // Submits a batch of `rows` rows, unlike any other.
  void Submit(LaneGroup& group, SlotLease lease, uint32_t rows) {
    const int id = next_id_.fetch_add(1);
    const Tensors host = TensorsOf(lease);
    Fill(id, host, 0, rows);
    group.Submit(std::move(lease), rows,
                 [this, id, rows, host](const Status& status, SlotLease back) {
                   const bool is_right = !status.ok() || IsRight(host, id, rows);
                   back = SlotLease();
                   Enter(id, status, is_right);
                 });
  }

  // The same with what `use` says in a room, which the batch holds.
  void SubmitRouted(LaneGroup& group, SlotLease lease, uint32_t rows, const RoomUse& use) {
    const int id = next_id_.fetch_add(1);
    Tensors host = TensorsOf(lease);
    const Tensors there = TensorsOf(*use.room);
    Fill(id, host, 0, use.host_rows);
    Fill(id, there, use.host_rows, rows);
    Route route;
    const int device = use.room->device();
    for (const size_t input : {0, 1}) {
      const size_t row_bytes = input == 0 ? width_ * sizeof(float) : sizeof(float);
      const size_t host_bytes = use.host_rows * row_bytes;
      const auto* at = reinterpret_cast<uint8_t*>(input == 0 ? there.x : there.b);
      if (host_bytes > 0) route.inputs.push_back({input, lease.input(input), host_bytes});
      route.inputs.push_back({input, at + host_bytes, rows * row_bytes - host_bytes, device});
    }
    if (use.has_outputs) {
      route.outputs = {{0, 0, rows, there.y, kMaxRows * width_ * sizeof(float), device},
                       {1, 0, rows, there.n, kMaxRows * sizeof(uint32_t), device}};
      if (!use.is_read_on_host) route.unread = {0, 1};
    }
    route.held.push_back(use.room);
    const bool on_host = !use.has_outputs || use.is_read_on_host;
    group.Submit(
        std::move(lease), rows,
        [this, id, rows, host, there, on_host, read = use.has_outputs ? use.room : nullptr](
            const Status& status, SlotLease back) {
          const bool is_right = !status.ok() || ((!on_host || IsRight(host, id, rows)) &&
                                                 (read == nullptr || IsRight(there, id, rows)));
          back = SlotLease();
          Enter(id, status, is_right);
        },
        &route);
  }
  // What a room needs to have.
  size_t RoomBytes() const { return kMaxRows * (2 * width_ + 2) * sizeof(float); }

  // Waits until every batch has been answered.
  void AwaitAll() EXCLUDES(mu_) {
    MutexLock lock(mu_);
    while (static_cast<int>(answers_.size()) < next_id_.load()) answered_.Wait(mu_);
  }
  int submitted() const { return next_id_.load(); }
  int succeeded() EXCLUDES(mu_) { return Count(StatusCode::kOk); }
  int Count(StatusCode code) EXCLUDES(mu_) {
    MutexLock lock(mu_);
    int count = 0;
    for (const auto& [id, status] : answers_) count += status.code() == code ? 1 : 0;
    return count;
  }
  int wrong() EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return wrong_;
  }
  int twice() EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return twice_;
  }

 private:
  static float X(int id, uint32_t row, size_t i) {
    return static_cast<float>(id % 1000) * 16 + static_cast<float>(row) * 4 +
           static_cast<float>(i % 64) * 0.25F;
  }

  static constexpr size_t kMaxRows = 8;

  struct Tensors {
    float* x;
    float* b;
    float* y;
    uint32_t* n;
  };

  static Tensors TensorsOf(const SlotLease& lease) {
    return {reinterpret_cast<float*>(lease.input(0)), reinterpret_cast<float*>(lease.input(1)),
            reinterpret_cast<float*>(const_cast<uint8_t*>(lease.output(0))),
            reinterpret_cast<uint32_t*>(const_cast<uint8_t*>(lease.output(1)))};
  }
  Tensors TensorsOf(const ClientRoom& room) const {
    auto* x = reinterpret_cast<float*>(room.data());
    float* b = x + kMaxRows * width_;
    float* y = b + kMaxRows;
    return {x, b, y, reinterpret_cast<uint32_t*>(y + kMaxRows * width_)};
  }
  void Fill(int id, const Tensors& to, uint32_t first, uint32_t end) const {
    for (uint32_t row = first; row < end; ++row) {
      to.b[row] = static_cast<float>(id % 1000);
      for (size_t i = 0; i < width_; ++i) to.x[row * width_ + i] = X(id, row, i);
    }
  }

  bool IsRight(const Tensors& in, int id, uint32_t rows) const {
    for (uint32_t row = 0; row < rows; ++row) {
      if (in.n[row] != row) return false;
      const float bias = static_cast<float>(id % 1000) + static_cast<float>(row);
      for (size_t i = 0; i < width_; ++i) {
        if (in.y[row * width_ + i] != 2 * X(id, row, i) + bias) return false;
      }
    }
    return true;
  }

  void Enter(int id, const Status& status, bool is_right) EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (!answers_.emplace(id, status).second) ++twice_;
    if (!is_right) ++wrong_;
    answered_.NotifyAll();
  }

  const size_t width_;
  std::atomic<int> next_id_{0};

  Mutex mu_;
  CondVar answered_;
  std::map<int, Status> answers_ GUARDED_BY(mu_);
  int wrong_ GUARDED_BY(mu_) = 0;
  int twice_ GUARDED_BY(mu_) = 0;
};

}  // namespace penstock::gpu
