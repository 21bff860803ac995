// Lanes on a real GPU, with an engine of our own kernels: the whole path of a batch, and its end
// when the device is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "gpu/cuda_api.h"
#include "gpu/device.h"
#include "gpu/kernels/kernels.h"
#include "reference.h"

namespace penstock::gpu {
namespace {

constexpr size_t kWidth = 1000;  // elements in a row
constexpr uint32_t kMaxRows = 8;

// y = x in 16 bits; once it is broken it reads where nothing is.
class CastEngine final : public DeviceEngine {
 public:
  class Context final : public DeviceContext {
   public:
    Context(const CastEngine& engine, Bindings bindings)
        : engine_(engine), bindings_(std::move(bindings)) {}

    Status Enqueue(Stream stream, uint32_t rows) override {
      auto* native = reinterpret_cast<cudaStream_t>(stream);
      const cudaError_t error =
          engine_.is_broken ? GatherRows(bindings_.outputs[0], nullptr, rows, 16, native)
                            : Cast(bindings_.outputs[0], Element::kFp16, bindings_.inputs[0],
                                   Element::kFp32, rows * kWidth, native);
      return error == cudaSuccess ? Status::Ok() : Internal(cudaGetErrorName(error));
    }

   private:
    const CastEngine& engine_;
    const Bindings bindings_;
  };

  const std::string& name() const override { return name_; }
  const std::vector<DeviceTensor>& inputs() const override { return inputs_; }
  const std::vector<DeviceTensor>& outputs() const override { return outputs_; }
  uint32_t max_rows() const override { return kMaxRows; }
  bool takes_any_rows() const override { return true; }
  Result<std::unique_ptr<DeviceContext>> CreateContext(const Bindings& bindings, uint32_t,
                                                       Stream) override {
    return std::unique_ptr<DeviceContext>(new Context(*this, bindings));
  }

  std::atomic<bool> is_broken{false};

 private:
  const std::string name_ = "cast";
  const std::vector<DeviceTensor> inputs_ = {{"x", DataType::kFp32, kWidth * sizeof(float)}};
  const std::vector<DeviceTensor> outputs_ = {{"y", DataType::kFp16, kWidth * sizeof(uint16_t)}};
};

// How many batches ended, well or not, and how many were wrong.
class Tally {
 public:
  void Submit(LaneGroup& group, SlotLease lease, uint32_t rows, int id) {
    auto* x = reinterpret_cast<float*>(lease.input(0));
    for (size_t i = 0; i < rows * kWidth; ++i) x[i] = Value(id, i);
    group.Submit(std::move(lease), rows, [this, rows, id](const Status& status, SlotLease back) {
      Enter(status, status.ok() && !IsRight(back, rows, id));
    });
  }
  void Await(int count) {
    MutexLock lock(mu_);
    while (ended_ < count) changed_.Wait(mu_);
  }
  int wrong() {
    MutexLock lock(mu_);
    return wrong_;
  }
  int Count(StatusCode code) {
    MutexLock lock(mu_);
    return counts_[static_cast<size_t>(code)];
  }

 private:
  static float Value(int id, size_t i) {
    return static_cast<float>(id) + static_cast<float>(i) * 0.37F;
  }
  static bool IsRight(const SlotLease& lease, uint32_t rows, int id) {
    const auto* y = reinterpret_cast<const uint16_t*>(lease.output(0));
    for (size_t i = 0; i < rows * kWidth; ++i) {
      if (y[i] != NearestHalf(Value(id, i), 5)) return false;
    }
    return true;
  }
  void Enter(const Status& status, bool is_wrong) {
    MutexLock lock(mu_);
    ++ended_;
    ++counts_[static_cast<size_t>(status.code())];
    wrong_ += is_wrong ? 1 : 0;
    changed_.NotifyAll();
  }

  Mutex mu_;
  CondVar changed_;
  int ended_ GUARDED_BY(mu_) = 0;
  int wrong_ GUARDED_BY(mu_) = 0;
  int counts_[17] GUARDED_BY(mu_) = {};
};

const DeviceOptions kOptions{.pinned = {{.block_bytes = size_t{64} << 10, .blocks = 4}}};

TEST(CudaLaneTest, DoubleBuffered_AnswersAreRightAndGraphsAreUsed) {
  auto api = OpenCudaApi();
  if (!api.ok()) GTEST_SKIP() << api.status().ToString();
  auto device = Device::Open(**api, Clock::System(), kOptions);
  ASSERT_TRUE(device.ok()) << device.status().ToString();
  CastEngine engine;
  Tally tally;
  auto group = LaneGroup::Load((*device)->resources(), engine, {});
  ASSERT_TRUE(group.ok()) << group.status().ToString();
  for (const Bucket& bucket : (*group)->table().buckets()) {
    EXPECT_TRUE(bucket.has_graph && bucket.graph_ns && bucket.eager_ns) << bucket.rows;
  }
  for (int id = 0; id < 400; ++id) {
    auto lease = (*group)->Acquire(kNever);
    ASSERT_TRUE(lease.ok()) << lease.status().ToString();
    tally.Submit(**group, std::move(*lease), static_cast<uint32_t>(id) % kMaxRows + 1, id);
  }
  tally.Await(400);
  EXPECT_EQ(tally.Count(StatusCode::kOk), 400);
  EXPECT_EQ(tally.wrong(), 0);
  uint64_t graph_runs = 0;
  for (const uint64_t runs : (*group)->counts().graph_runs) graph_runs += runs;
  EXPECT_GE(graph_runs, 200U) << "batches of 1, 2, 4 and 8 rows";
}

// In a process of its own, which is lost with the device. Says what went wrong, or exits 0.
[[noreturn]] void LoseTheDevice() {
  auto api = OpenCudaApi();
  std::atomic<int> told{0};
  DeviceOptions options = kOptions;
  options.on_fault = [&told](const Status&) { ++told; };
  auto device = Device::Open(**api, Clock::System(), options);
  CastEngine engine;
  Tally tally;
  auto group =
      LaneGroup::Load((*device)->resources(), engine, {.graph_budget_bytes = 0, .measure_runs = 0});
  tally.Submit(**group, std::move(*(*group)->Acquire(kNever)), 8, 0);
  tally.Await(1);
  engine.is_broken = true;
  tally.Submit(**group, std::move(*(*group)->Acquire(kNever)), 8, 1);
  tally.Await(2);
  const bool is_refused = (*group)->Acquire(kNever).status().code() == StatusCode::kUnavailable;
  const bool is_right = tally.Count(StatusCode::kOk) == 1 && tally.wrong() == 0 &&
                        tally.Count(StatusCode::kUnavailable) == 1 && told == 1 && is_refused;
  std::fprintf(stderr, "lost: %s\n", (*device)->health().fault().ToString().c_str());
  std::_Exit(is_right ? 0 : 1);
}

TEST(CudaLaneDeathTest, KernelThatReadsNowhere_LosesTheDeviceAndAnswersEverything) {
  // Threadsafe: the child starts anew, as a context of CUDA's does not survive a fork.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  if (!OpenCudaApi().ok()) GTEST_SKIP() << OpenCudaApi().status().ToString();
  EXPECT_EXIT(LoseTheDevice(), ::testing::ExitedWithCode(0), "cudaErrorIllegalAddress");
}

}  // namespace
}  // namespace penstock::gpu
