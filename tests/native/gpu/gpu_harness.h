// A fake device with all that lanes need, and a ledger of the batches that were given to it.

#pragma once

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
#include "testing/fake_gpu.h"
#include "testing/fake_gpu_engine.h"
#include "testing/quiet_log.h"

namespace penstock::gpu {

// A fake GPU, opened, with an engine on it.
struct FakeDevice {
  explicit FakeDevice(const FakeGpuOptions& gpu_options = {},
                      const FakeGpuEngineOptions& engine_options = {},
                      Clock& clock = Clock::System())
      : gpu(gpu_options),
        device(std::move(*Device::Open(gpu, clock,
                                       {.pinned = {{.block_bytes = 16 << 10, .blocks = 16}},
                                        .on_fault = [this](const Status&) { ++faults; }}))),
        health(device->health()),
        pool(&device->pool()),
        engine(gpu, engine_options) {}

  Result<std::unique_ptr<LaneGroup>> Load(const LaneGroupOptions& options = {}) {
    return LaneGroup::Load(device->resources(), engine, options);
  }

  std::atomic<int> faults{0};  // how often its owner was told
  FakeGpu gpu;
  std::unique_ptr<Device> device;
  DeviceHealth& health;
  PinnedPool* pool;
  FakeGpuEngine engine;
};

// Fills batches, submits them, and holds each answer against what the engine must compute.
// Threading: thread-safe.
class Ledger {
 public:
  explicit Ledger(const FakeDevice& device) : Ledger(device.engine) {}
  explicit Ledger(const FakeGpuEngine& engine)
      : width_(engine.inputs()[0].row_bytes / sizeof(float)) {}

  // Submits a batch of `rows` rows, unlike any other.
  void Submit(LaneGroup& group, SlotLease lease, uint32_t rows) {
    const int id = next_id_.fetch_add(1);
    auto* x = reinterpret_cast<float*>(lease.input(0));
    auto* b = reinterpret_cast<float*>(lease.input(1));
    for (uint32_t row = 0; row < rows; ++row) {
      b[row] = static_cast<float>(id % 1000);
      for (size_t i = 0; i < width_; ++i) x[row * width_ + i] = X(id, row, i);
    }
    group.Submit(std::move(lease), rows, [this, id, rows](const Status& status, SlotLease back) {
      const bool is_right = !status.ok() || IsRight(back, id, rows);
      back = SlotLease();
      Enter(id, status, is_right);
    });
  }

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

  bool IsRight(const SlotLease& lease, int id, uint32_t rows) const {
    const auto* y = reinterpret_cast<const float*>(lease.output(0));
    const auto* n = reinterpret_cast<const uint32_t*>(lease.output(1));
    for (uint32_t row = 0; row < rows; ++row) {
      if (n[row] != row) return false;
      const float bias = static_cast<float>(id % 1000) + static_cast<float>(row);
      for (size_t i = 0; i < width_; ++i) {
        if (y[row * width_ + i] != 2 * X(id, row, i) + bias) return false;
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
