// A device of RowDevice's, fake or real, with all that lanes need, and memory on it: for tests that are
// the same on both.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gpu_harness.h"
#include "testing/row_device.h"

namespace penstock::gpu {

// y = 2x + b + the row's number, n = the row's number, by RowWork's kernel.
// Ownership: borrows the device's parts.
class RowEngine final : public DeviceEngine {
 public:
  static constexpr uint32_t kMaxRows = 8;
  static constexpr size_t kWidth = 1000;
  static constexpr size_t kRowBytes = kWidth * sizeof(float);

  explicit RowEngine(const RowDevice& device) : device_(device) {}

  const std::string& name() const override { return name_; }
  const std::vector<DeviceTensor>& inputs() const override { return inputs_; }
  const std::vector<DeviceTensor>& outputs() const override { return outputs_; }
  uint32_t max_rows() const override { return kMaxRows; }
  bool takes_any_rows() const override { return true; }
  Result<std::unique_ptr<DeviceContext>> CreateContext(const Bindings& bindings, uint32_t,
                                                       Stream stream) override {
    DeviceMemory memory;
    if (context_bytes > 0) {
      void* data = nullptr;
      if (device_.api->AllocateAsync(context_bytes, stream, &data) != Error::kSuccess) {
        return ResourceExhausted("no memory for a context");
      }
      memory = DeviceMemory(*device_.api, stream, data);
    }
    return std::unique_ptr<DeviceContext>(new Context(*this, bindings, std::move(memory)));
  }

  size_t context_bytes = 0;        // what a context made from now on holds of the device's memory
  std::optional<float> trap_at{};  // likewise: see RowWork

 private:
  class Context final : public DeviceContext {
   public:
    Context(const RowEngine& engine, const Bindings& to, DeviceMemory memory)
        : launch_(engine.device_.launch), memory_(std::move(memory)) {
      work_.width = kWidth;
      work_.x = static_cast<const float*>(to.inputs[0]);
      work_.b = static_cast<const float*>(to.inputs[1]);
      work_.y = static_cast<float*>(to.outputs[0]);
      work_.n = static_cast<uint32_t*>(to.outputs[1]);
      work_.has_trap = engine.trap_at.has_value();
      work_.trap_at = engine.trap_at.value_or(0);
    }
    Status Enqueue(Stream stream, uint32_t rows) override {
      work_.rows = rows;
      return launch_(stream, work_);
    }

   private:
    const RowLaunch& launch_;
    const DeviceMemory memory_;
    RowWork work_;
  };

  const RowDevice& device_;
  const std::string name_ = "rows";
  const std::vector<DeviceTensor> inputs_ = {{"x", DataType::kFp32, kRowBytes},
                                             {"b", DataType::kFp32, sizeof(float)}};
  const std::vector<DeviceTensor> outputs_ = {{"y", DataType::kFp32, kRowBytes},
                                              {"n", DataType::kUint32, sizeof(uint32_t)}};
};

// Where the tensors of a batch of RowEngine's lie, one behind the other, with room for all rows.
struct RowTensors {
  static constexpr size_t kBytes = RowEngine::kMaxRows * 2 * (RowEngine::kRowBytes + sizeof(float));

  explicit RowTensors(void* data)
      : x(static_cast<float*>(data)),
        b(x + RowEngine::kMaxRows * RowEngine::kWidth),
        y(b + RowEngine::kMaxRows),
        n(reinterpret_cast<uint32_t*>(y + RowEngine::kMaxRows * RowEngine::kWidth)) {}
  explicit RowTensors(const SlotLease& lease)
      : x(reinterpret_cast<float*>(lease.input(0))),
        b(reinterpret_cast<float*>(lease.input(1))),
        y(reinterpret_cast<float*>(const_cast<uint8_t*>(lease.output(0)))),
        n(reinterpret_cast<uint32_t*>(const_cast<uint8_t*>(lease.output(1)))) {}

  static float X(int id, uint32_t row, size_t i) {
    return static_cast<float>(id % 1000) * 16 + static_cast<float>(row) * 4 +
           static_cast<float>(i % 64) * 0.25F;
  }
  void Fill(int id, uint32_t first, uint32_t end) const {
    for (uint32_t row = first; row < end; ++row) {
      b[row] = static_cast<float>(id % 100);
      for (size_t i = 0; i < RowEngine::kWidth; ++i) x[row * RowEngine::kWidth + i] = X(id, row, i);
    }
  }
  bool IsRight(int id, uint32_t rows) const {
    for (uint32_t row = 0; row < rows; ++row) {
      if (n[row] != row) return false;
      for (size_t i = 0; i < RowEngine::kWidth; ++i) {
        const float expected = 2 * X(id, row, i) + static_cast<float>(id % 100);
        if (y[row * RowEngine::kWidth + i] != expected + static_cast<float>(row)) return false;
      }
    }
    return true;
  }

  float* x;
  float* b;
  float* y;
  uint32_t* n;
};

// Memory on a device for the tensors of a batch, and pinned memory that it is written and read by. What
// goes wrong is a failure of the test.
// Threading: of one thread, whose device is the first one afterwards.
// Ownership: borrows the Api.
class DeviceRoom {
 public:
  DeviceRoom(Api& api, int device) : api_(api), device_(device) {
    OnDevice([&] {
      Expect(api_.CreateStream(&stream_));
      Expect(api_.AllocateAsync(RowTensors::kBytes, stream_, &data_));
      Expect(api_.AllocatePinned(RowTensors::kBytes, &host_));
      Expect(api_.SynchronizeStream(stream_));
    });
  }
  ~DeviceRoom() {
    OnDevice([&] {
      Expect(api_.FreeAsync(data_, stream_));
      Expect(api_.SynchronizeStream(stream_));
      Expect(api_.FreePinned(host_));
      Expect(api_.DestroyStream(stream_));
    });
  }
  DeviceRoom(const DeviceRoom&) = delete;
  DeviceRoom& operator=(const DeviceRoom&) = delete;

  int device() const { return device_; }
  RowTensors there() const { return RowTensors(data_); }  // addresses of the device's
  RowTensors host() const { return RowTensors(host_); }
  void Put() { Copy({data_, host_, RowTensors::kBytes}, CopyKind::kHostToDevice); }
  void Take() { Copy({host_, data_, RowTensors::kBytes}, CopyKind::kDeviceToHost); }

 private:
  void Copy(const gpu::Copy& copy, CopyKind kind) {
    OnDevice([&] {
      Expect(api_.CopyAsync(copy, kind, stream_));
      Expect(api_.SynchronizeStream(stream_));
    });
  }
  template <typename Work>
  void OnDevice(const Work& work) {
    Expect(api_.SetDevice(device_));
    work();
    Expect(api_.SetDevice(0));
  }
  void Expect(Error error) { EXPECT_EQ(error, Error::kSuccess) << api_.ErrorName(error); }

  Api& api_;
  const int device_;
  Stream stream_ = nullptr;
  void* data_ = nullptr;
  void* host_ = nullptr;
};

// How the batch ends. `back`: its slot.
inline Status RunBatch(LaneGroup& group, SlotLease lease, uint32_t rows, Route route,
                       SlotLease* back) {
  Mutex mu;
  CondVar over;
  bool is_over = false;
  Status how;
  group.Submit(
      std::move(lease), rows,
      [&](const Status& status, SlotLease returned) {
        MutexLock lock(mu);
        how = status;
        *back = std::move(returned);
        is_over = true;
        over.NotifyOne();
      },
      &route);
  MutexLock lock(mu);
  while (!is_over) over.Wait(mu);
  return how;
}

// Each of the programs that these tests are in has its own GPUs.
class RowDeviceTest : public ::testing::TestWithParam<RowApi> {
 protected:
  static Result<RowDevice> Open() { return OpenRowDevice(GetParam(), PENSTOCK_TEST_DRIVER); }

  void SetUp() override {
    auto opened = Open();
    if (!opened.ok()) GTEST_SKIP() << opened.status().ToString();
    rows_ = *std::move(opened);
    auto device = Device::Open(api(), Clock::System(), {});
    ASSERT_TRUE(device.ok()) << device.status().ToString();
    device_ = *std::move(device);
    auto pool = PinnedPool::Create(api(), device_->health(), kBlockBytes, /*blocks=*/16);
    ASSERT_TRUE(pool.ok()) << pool.status().ToString();
    pool_ = *std::move(pool);
  }

  Api& api() { return *rows_.api; }
  std::unique_ptr<LaneGroup> Load(const LaneGroupOptions& options) {
    auto group = LaneGroup::Load(device_->resources(*pool_), engine_, options);
    EXPECT_TRUE(group.ok()) << group.status().ToString();
    return group.ok() ? *std::move(group) : nullptr;
  }

  static constexpr size_t kBlockBytes = size_t{128} << 10;
  RowDevice rows_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<PinnedPool> pool_;
  RowEngine engine_{rows_};
};

inline std::string NameOf(const ::testing::TestParamInfo<RowApi>& which) {
  return which.param == RowApi::kRuntime ? "Runtime" : "Driver";
}

}  // namespace penstock::gpu
