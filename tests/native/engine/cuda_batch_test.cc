// Requests whose tensors lie in a GPU's memory, through the engine, on a fake GPU: the memory of
// clients is objects of POSIX shared memory.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine_harness.h"
#include "gpu/ipc_devices.h"
#include "testing/fake_gpu.h"
#include "testing/shm_object.h"

namespace penstock {
namespace {

using testing::HasSubstr;

class CudaBatchTest : public testing::Test {
 protected:
  Engine::Options Options() {
    Engine::Options options;
    options.allow_client_shm = true;
    options.devices =
        std::make_shared<gpu::IpcDevices>([this]() -> Result<std::unique_ptr<gpu::Api>> {
          auto opened = std::make_unique<FakeGpu>();
          gpu_ = opened.get();
          return std::unique_ptr<gpu::Api>(std::move(opened));
        });
    return options;
  }
  SharedMemory& memory() { return harness_.engine.shared_memory(); }
  void Register(const ShmObject& object, const std::string& name, uint64_t size_bytes) {
    const Status status =
        memory().RegisterCuda(object.CudaRegion(name, size_bytes), object.IpcHandle());
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  static void ExpectFailed(const Outcome& outcome, StatusCode code, const std::string& text) {
    EXPECT_EQ(outcome.status.code(), code) << outcome.status.ToString();
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr(text));
  }

  FakeGpu* gpu_ = nullptr;  // once a region is registered
  EngineHarness harness_{Options()};
};

const InferMessage kInAndOut =
    InferMessage().SharedInput("IN", "FP32", {1, 2}, {"r", 8}).SharedOutput("OUT", {"r", 8, 8});

TEST_F(CudaBatchTest, InputAndOutput_AreReadAndWrittenAndTheContentsAreEmpty) {
  ShmObject object(RawOf<float>({1, 2}) + std::string(8, '.'));
  Register(object, "r", 16);
  harness_.Serve(IdentitySpec());
  const Outcome outcome = harness_.Run(kInAndOut);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.ToString();
  EXPECT_EQ(outcome.outputs, std::vector<std::string>{""});
  EXPECT_EQ(object.Read(16), RawOf<float>({1, 2, 1, 2}));
}

TEST_F(CudaBatchTest, BothKindsAndNone_AreOneBatch) {
  ShmObject on_gpu(RawOf<float>({1}));
  ShmObject on_host(RawOf<float>({2}));
  Register(on_gpu, "gpu", 4);
  ASSERT_TRUE(memory().Register(on_host.Region("host", 4)).ok());
  std::string shape;
  const auto version =
      harness_.Create(IdentitySpec(), [&](auto inputs, auto wanted, auto* outputs) {
        shape = inputs[0].tensor.shape.ToString();
        return Echo(inputs, wanted, outputs);
      });
  harness_.engine.SetServing("m", {version}, {});
  const RequestRef first =
      harness_.Send(InferMessage().SharedInput("IN", "FP32", {1, 1}, {"gpu", 4}));
  const RequestRef second =
      harness_.Send(InferMessage().SharedInput("IN", "FP32", {1, 1}, {"host", 4}));
  const RequestRef third = harness_.Send(InferMessage().Row({3}));
  harness_.engine.Start(version);
  harness_.Await(3);
  EXPECT_EQ(shape, "[3,1]");
  float expected = 1;
  for (const RequestRef& request : {first, second, third}) {
    EXPECT_EQ(TextOf(AsInfer(request).outputs[0].data), RawOf<float>({expected++}));
  }
}

TEST_F(CudaBatchTest, RegionsOfOneRequest_MayBeMany) {
  ShmObject in(RawOf<float>({5}));
  ShmObject out(size_t{4});
  Register(in, "in", 4);
  Register(out, "out", 4);
  harness_.Serve(IdentitySpec());
  const Outcome outcome = harness_.Run(
      InferMessage().SharedInput("IN", "FP32", {1, 1}, {"in", 4}).SharedOutput("OUT", {"out", 4}));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.ToString();
  EXPECT_EQ(out.Read(4), RawOf<float>({5}));
}

TEST_F(CudaBatchTest, TensorBeyondItsRegion_IsRefusedUnread) {
  ShmObject object(size_t{64});
  Register(object, "r", 8);  // less than there is
  harness_.Serve(IdentitySpec());
  const int calls = gpu_->calls();
  ExpectFailed(harness_.Run(InferMessage().SharedInput("IN", "FP32", {1, 2}, {"r", 8, 4})),
               StatusCode::kInvalidArgument,
               "Invalid offset + byte size for shared memory region: 'r' of 8 bytes");
  ExpectFailed(harness_.Run(InferMessage().Row({1}).SharedOutput("OUT", {"r", 4, 8})),
               StatusCode::kInvalidArgument, "Invalid offset for shared memory region: 'r'");
  EXPECT_EQ(gpu_->calls(), calls);
}

TEST_F(CudaBatchTest, CopyThatFails_FailsItsRequestAlone) {
  ShmObject object(RawOf<float>({1, 2}) + std::string(8, '.'));
  Register(object, "r", 16);
  harness_.Serve(IdentitySpec());
  gpu_->FailCall("CopyAsync", 1, gpu::Error::kInvalidValue);
  ExpectFailed(harness_.Run(kInAndOut), StatusCode::kInternal,
               "input 'IN' for model 'm': GPU 0: cannot read shared memory region 'r'");
  gpu_->FailCall("CopyAsync", 2, gpu::Error::kInvalidValue);
  ExpectFailed(harness_.Run(kInAndOut), StatusCode::kInternal,
               "output 'OUT' of model 'm': GPU 0: cannot write shared memory region 'r'");
  EXPECT_TRUE(harness_.Run(kInAndOut).status.ok());
}

TEST_F(CudaBatchTest, LostDevice_EndsWhoNeedsItUnavailableAndNobodyElse) {
  ShmObject object(RawOf<float>({1, 2}) + std::string(8, '.'));
  Register(object, "r", 16);
  harness_.Serve(IdentitySpec());
  gpu_->FaultWork(1, gpu::Error::kIllegalAddress);
  for (int i = 0; i < 2; ++i) {
    ExpectFailed(harness_.Run(kInAndOut), StatusCode::kUnavailable, "cudaErrorIllegalAddress");
  }
  EXPECT_TRUE(harness_.Run(InferMessage().Row({1, 2})).status.ok());
}

TEST_F(CudaBatchTest, UnregisteredWhileRunning_IsWrittenAndThenClosed) {
  ShmObject object(RawOf<float>({1, 2}) + std::string(8, '.'));
  Register(object, "r", 16);
  Gate gate;
  harness_.Serve(IdentitySpec(), [&gate](auto inputs, auto wanted, auto* outputs) {
    gate.Pass();
    return Echo(inputs, wanted, outputs);
  });
  const RequestRef ref = harness_.Send(kInAndOut);
  gate.AwaitArrived(1);
  ASSERT_TRUE(memory().Unregister(RegionKind::kCuda, "").ok());
  EXPECT_EQ(memory().TestOnlyCloser(RegionKind::kCuda).TestOnlyClosed(), 0U);
  gate.Open();
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
  EXPECT_EQ(object.Read(8, 8), RawOf<float>({1, 2}));
  memory().TestOnlyCloser(RegionKind::kCuda).WaitIdle();
  EXPECT_EQ(memory().TestOnlyCloser(RegionKind::kCuda).TestOnlyClosed(), 1U);
  ExpectFailed(harness_.Run(kInAndOut), StatusCode::kNotFound,
               "Unable to find shared memory region: 'r'");
}

}  // namespace
}  // namespace penstock
