// FakeGpuEngine: a model for the fake GPU whose answers are easy to check and wrong when anything
// is read too early: y = 2x + b + the row's number, n = the row's number.

#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "gpu/device_engine.h"
#include "testing/fake_clock.h"
#include "testing/fake_gpu.h"

namespace penstock {

struct FakeGpuEngineOptions {
  uint32_t max_rows = 8;
  size_t width = 16;  // floats in a row of x and y; b is one float, n one uint32
  bool takes_any_rows = true;
  bool has_host_input = false;        // b stays on the host
  size_t context_bytes = 0;           // what a context holds of the device's memory
  uint32_t synchronizes_at_rows = 0;  // it does then what cannot be captured; 0 = never
  bool row_changes_cost = false;
  FakeClock* clock =
      nullptr;         // that runs move: by `row_ns` for each row, and by `change_ns` where the
  int64_t row_ns = 0;  // run before on their stream had another number of rows
  int64_t change_ns = 0;
};

// Threading: thread-safe.
// Ownership: borrows the GPU.
class FakeGpuEngine final : public gpu::DeviceEngine {
 public:
  FakeGpuEngine(FakeGpu& gpu, const FakeGpuEngineOptions& options);

  const std::string& name() const override { return name_; }
  const std::vector<gpu::DeviceTensor>& inputs() const override { return inputs_; }
  const std::vector<gpu::DeviceTensor>& outputs() const override { return outputs_; }
  uint32_t max_rows() const override { return options_.max_rows; }
  bool takes_any_rows() const override { return options_.takes_any_rows; }
  bool row_changes_cost() const override { return options_.row_changes_cost; }
  Result<std::unique_ptr<gpu::DeviceContext>> CreateContext(const gpu::Bindings& bindings,
                                                            uint32_t rows,
                                                            gpu::Stream stream) override;

  // Enqueue fails at its nth call from now on (1 = the next), in its own words.
  void FailEnqueue(int nth) { enqueues_to_failure_.store(nth); }
  // The next Enqueue calls this first.
  void CallAtNextEnqueue(std::function<void()> call);
  int contexts() const { return contexts_.load(); }  // made so far
  // Runs so far with another number of rows than the one before on their stream, or none before.
  int row_changes() const { return row_changes_.load(); }
  int live_contexts() const { return live_contexts_.load(); }  // and not destroyed

 private:
  friend class FakeGpuContext;

  std::function<void()> TakeCall() EXCLUDES(mu_);
  void TakeTime(gpu::Stream stream, uint32_t rows) EXCLUDES(mu_);

  FakeGpu& gpu_;
  const FakeGpuEngineOptions options_;
  const std::string name_ = "fake";
  const std::vector<gpu::DeviceTensor> inputs_, outputs_;
  std::atomic<int> enqueues_to_failure_{0};
  std::atomic<int> contexts_{0}, live_contexts_{0}, row_changes_{0};

  Mutex mu_;
  // Guarded by mu_.
  std::function<void()> call_ GUARDED_BY(mu_);
  std::map<gpu::Stream, uint32_t> last_rows_ GUARDED_BY(mu_);
};

}  // namespace penstock
