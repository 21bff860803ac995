#include "testing/fake_gpu_engine.h"

#include <utility>

#include "base/strcat.h"
#include "gpu/gpu_handles.h"

namespace penstock {

using gpu::Error;

class FakeGpuContext final : public gpu::DeviceContext {
 public:
  FakeGpuContext(FakeGpuEngine& engine, gpu::Bindings bindings, uint32_t max_rows,
                 gpu::DeviceMemory memory)
      : engine_(engine),
        bindings_(std::move(bindings)),
        max_rows_(max_rows),
        memory_(std::move(memory)) {
    ++engine_.live_contexts_;
  }
  ~FakeGpuContext() override { --engine_.live_contexts_; }

  Status Enqueue(gpu::Stream stream, uint32_t rows) override;

 private:
  FakeWork Scale(uint32_t rows) const;
  FakeWork AddBias(uint32_t rows) const;

  FakeGpuEngine& engine_;
  const gpu::Bindings bindings_;
  const uint32_t max_rows_;
  const gpu::DeviceMemory memory_;
};

FakeGpuEngine::FakeGpuEngine(FakeGpu& gpu, const FakeGpuEngineOptions& options)
    : gpu_(gpu),
      options_(options),
      inputs_({{"x", DataType::kFp32, options.width * sizeof(float)},
               {"b", DataType::kFp32, sizeof(float), options.has_host_input}}),
      outputs_({{"y", DataType::kFp32, options.width * sizeof(float)},
                {"n", DataType::kUint32, sizeof(uint32_t)}}) {}

void FakeGpuEngine::CallAtNextEnqueue(std::function<void()> call) {
  MutexLock lock(mu_);
  call_ = std::move(call);
}

std::function<void()> FakeGpuEngine::TakeCall() {
  MutexLock lock(mu_);
  return std::exchange(call_, nullptr);
}

void FakeGpuEngine::TakeTime(gpu::Stream stream, uint32_t rows) {
  bool is_change = false;
  {
    MutexLock lock(mu_);
    is_change = std::exchange(last_rows_[stream], rows) != rows;
  }
  row_changes_ += is_change ? 1 : 0;
  if (options_.clock == nullptr) return;
  options_.clock->Advance(rows * options_.row_ns + (is_change ? options_.change_ns : 0));
}

Result<std::unique_ptr<gpu::DeviceContext>> FakeGpuEngine::CreateContext(
    const gpu::Bindings& bindings, uint32_t rows, gpu::Stream stream) {
  gpu::DeviceMemory memory;
  if (options_.context_bytes > 0) {
    void* data = nullptr;
    if (gpu_.AllocateAsync(options_.context_bytes, stream, &data) != Error::kSuccess) {
      return ResourceExhausted("no memory for a context");
    }
    memory = gpu::DeviceMemory(gpu_, stream, data);
  }
  ++contexts_;
  return std::unique_ptr<gpu::DeviceContext>(
      new FakeGpuContext(*this, bindings, rows == kAnyRows ? max_rows() : rows, std::move(memory)));
}

// y = 2x + the row's number, n = the row's number
FakeWork FakeGpuContext::Scale(uint32_t rows) const {
  const size_t width = engine_.options_.width;
  auto* x = static_cast<const float*>(bindings_.inputs[0]);
  auto* y = static_cast<float*>(bindings_.outputs[0]);
  auto* n = static_cast<uint32_t*>(bindings_.outputs[1]);
  FakeWork work;
  work.reads = {{x, rows * width * sizeof(float)}};
  work.writes = {{y, rows * width * sizeof(float)}, {n, rows * sizeof(uint32_t)}};
  work.run = [=] {
    for (uint32_t row = 0; row < rows; ++row) {
      n[row] = row;
      for (size_t i = row * width; i < (row + 1) * width; ++i) {
        y[i] = 2 * x[i] + static_cast<float>(row);
      }
    }
    return Error::kSuccess;
  };
  return work;
}

// y += b
FakeWork FakeGpuContext::AddBias(uint32_t rows) const {
  const size_t width = engine_.options_.width;
  auto* b = static_cast<const float*>(bindings_.inputs[1]);
  auto* y = static_cast<float*>(bindings_.outputs[0]);
  FakeWork work;
  work.reads = {{b, rows * sizeof(float)}};
  work.writes = {{y, rows * width * sizeof(float)}};
  work.run = [=] {
    for (size_t i = 0; i < rows * width; ++i) y[i] += b[i / width];
    return Error::kSuccess;
  };
  return work;
}

Status FakeGpuContext::Enqueue(gpu::Stream stream, uint32_t rows) {
  if (rows > max_rows_) {
    return InvalidArgument(StrCat("a context of ", max_rows_, " rows was given ", rows));
  }
  if (const auto call = engine_.TakeCall()) call();
  std::atomic<int>& left = engine_.enqueues_to_failure_;
  if (left.load() > 0 && left.fetch_sub(1) == 1) return Internal("the engine will not");
  if (rows == engine_.options_.synchronizes_at_rows) {
    static_cast<void>(engine_.gpu_.SynchronizeStream(stream));
  }
  engine_.TakeTime(stream, rows);
  for (const bool is_first : {true, false}) {
    const Error error = engine_.gpu_.Launch(stream, is_first ? Scale(rows) : AddBias(rows));
    if (error != Error::kSuccess) {
      return Internal(StrCat("the engine's kernel failed: ", engine_.gpu_.ErrorName(error)));
    }
  }
  return Status::Ok();
}

}  // namespace penstock
