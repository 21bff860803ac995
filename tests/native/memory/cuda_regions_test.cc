// Regions on GPUs beside those of the system's shared memory: one space of names, two kinds.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <string>
#include <utility>
#include <vector>

#include "gpu/ipc_devices.h"
#include "memory/shared_memory.h"
#include "testing/fake_gpu.h"
#include "testing/shm_object.h"

namespace penstock {
namespace {

constexpr auto kSystem = RegionKind::kSystem;
constexpr auto kCuda = RegionKind::kCuda;

std::shared_ptr<DeviceRegions> FakeDevices() {
  return std::make_shared<gpu::IpcDevices>([]() -> Result<std::unique_ptr<gpu::Api>> {
    return std::unique_ptr<gpu::Api>(std::make_unique<FakeGpu>(FakeGpuOptions{.devices = 2}));
  });
}

// A region on a GPU whose driver does not close it before it is let go.
class StuckDevice final : public DeviceRegions {
 public:
  Status CheckUsable() override { return Status::Ok(); }
  Result<std::unique_ptr<const SharedRegion>> Open(SharedRegionInfo info,
                                                   std::string_view /*handle*/) override {
    return std::unique_ptr<const SharedRegion>(std::make_unique<Region>(std::move(info), *this));
  }
  void AwaitClosing() { closing_.get_future().wait(); }
  void LetGo() { let_go_.set_value(); }

 private:
  struct Region final : SharedRegion {
    Region(SharedRegionInfo info, StuckDevice& its_owner)
        : SharedRegion(std::move(info)), owner(its_owner) {}
    ~Region() override {
      owner.closing_.set_value();
      owner.let_go_.get_future().wait();
    }
    Status Read(uint64_t, std::span<uint8_t>) const override { return Status::Ok(); }
    Status Write(uint64_t, std::span<const uint8_t>) const override { return Status::Ok(); }

    StuckDevice& owner;
  };

  std::promise<void> closing_;
  std::promise<void> let_go_;
};

class CudaRegionsTest : public testing::Test {
 protected:
  Status RegisterCuda(const std::string& name, uint64_t size_bytes = 10, int64_t device_id = 0) {
    return memory_.RegisterCuda(object_.CudaRegion(name, size_bytes, device_id),
                                object_.IpcHandle());
  }
  std::vector<std::string> Names(RegionKind kind) {
    std::vector<std::string> names;
    const auto infos = memory_.List(kind, "");
    for (const SharedRegionInfo& info : *infos) names.push_back(info.name);
    return names;
  }

  ShmObject object_{std::string_view("0123456789")};
  SharedMemory memory_{{.is_allowed = true, .max_regions = 3, .devices = FakeDevices()}};
};

TEST_F(CudaRegionsTest, EachKind_IsListedByItself) {
  ASSERT_TRUE(RegisterCuda("on_gpu", 8, 1).ok());
  ASSERT_TRUE(memory_.Register(object_.Region("on_host", 10)).ok());
  EXPECT_EQ(Names(kSystem), std::vector<std::string>{"on_host"});
  EXPECT_EQ(Names(kCuda), std::vector<std::string>{"on_gpu"});
  const SharedRegionInfo info = memory_.List(kCuda, "on_gpu")->at(0);
  EXPECT_EQ(info.device_id, 1);
  EXPECT_EQ(info.size_bytes, 8U);
  EXPECT_EQ((*memory_.Find("on_gpu"))->info().kind, kCuda);
}

TEST_F(CudaRegionsTest, AskedForAsTheOtherKind_IsNotFoundAndSaysWhy) {
  ASSERT_TRUE(RegisterCuda("on_gpu").ok());
  ASSERT_TRUE(memory_.Register(object_.Region("on_host", 10)).ok());
  EXPECT_EQ(memory_.List(kSystem, "on_gpu").status().ToString(),
            "NOT_FOUND: The region named 'on_gpu' is registered as CUDA shared memory, not system "
            "shared memory");
  EXPECT_EQ(memory_.List(kCuda, "on_host").status().ToString(),
            "NOT_FOUND: The region named 'on_host' is registered as system shared memory, not CUDA "
            "shared memory");
  EXPECT_EQ(memory_.List(kCuda, "nobody").status().ToString(),
            "NOT_FOUND: Unable to find cuda shared memory region: 'nobody'");
}

TEST_F(CudaRegionsTest, NameThatTheOtherKindHas_AlreadyExists) {
  ASSERT_TRUE(RegisterCuda("a").ok());
  ASSERT_TRUE(memory_.Register(object_.Region("b", 10)).ok());
  EXPECT_EQ(memory_.Register(object_.Region("a", 10)).ToString(),
            "ALREADY_EXISTS: shared memory region 'a' already in manager");
  EXPECT_EQ(RegisterCuda("b").ToString(),
            "ALREADY_EXISTS: shared memory region 'b' already in manager");
}

TEST_F(CudaRegionsTest, Unregister_LeavesTheOtherKindAlone) {
  ASSERT_TRUE(RegisterCuda("a").ok());
  ASSERT_TRUE(RegisterCuda("b").ok());
  ASSERT_TRUE(memory_.Register(object_.Region("c", 10)).ok());
  ASSERT_TRUE(memory_.Unregister(kCuda, "c").ok());
  ASSERT_TRUE(memory_.Unregister(kSystem, "a").ok());
  EXPECT_EQ(Names(kCuda), (std::vector<std::string>{"a", "b"}));
  ASSERT_TRUE(memory_.Unregister(kCuda, "a").ok());
  ASSERT_TRUE(memory_.Unregister(kSystem, "").ok());
  EXPECT_EQ(Names(kCuda), std::vector<std::string>{"b"});
  EXPECT_TRUE(Names(kSystem).empty());
  ASSERT_TRUE(memory_.Unregister(kCuda, "").ok());
  EXPECT_TRUE(Names(kCuda).empty());
}

TEST_F(CudaRegionsTest, BothKinds_CountAgainstOneLimit) {
  ASSERT_TRUE(RegisterCuda("a").ok());
  ASSERT_TRUE(RegisterCuda("b").ok());
  ASSERT_TRUE(memory_.Register(object_.Region("c", 10)).ok());
  EXPECT_EQ(RegisterCuda("d").code(), StatusCode::kResourceExhausted);
  ASSERT_TRUE(memory_.Unregister(kSystem, "").ok());
  EXPECT_TRUE(RegisterCuda("d").ok());
}

TEST_F(CudaRegionsTest, RefusedRegions_HoldNoPlace) {
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(RegisterCuda("r", 11).ok());
  for (const char* name : {"a", "b", "c"}) EXPECT_TRUE(RegisterCuda(name).ok());
}

TEST_F(CudaRegionsTest, UnregisteredInUse_IsUsableUntilItsUserIsDone) {
  ASSERT_TRUE(RegisterCuda("r").ok());
  std::shared_ptr<const SharedRegion> used = *memory_.Find("r");
  ASSERT_TRUE(memory_.Unregister(kCuda, "r").ok());
  EXPECT_EQ(*memory_.Find("r"), nullptr);
  std::vector<uint8_t> bytes(10);
  EXPECT_TRUE(used->Read(0, bytes).ok());
  EXPECT_EQ(bytes[9], '9');
  used.reset();
  memory_.TestOnlyCloser(RegionKind::kCuda).WaitIdle();
  EXPECT_EQ(memory_.TestOnlyCloser(RegionKind::kCuda).TestOnlyClosed(), 1U);
}

TEST_F(CudaRegionsTest, DriverThatDoesNotClose_HoldsUpNoSystemRegion) {
  const auto devices = std::make_shared<StuckDevice>();
  SharedMemory memory({.is_allowed = true, .max_regions = 2, .devices = devices});
  ASSERT_TRUE(memory.RegisterCuda(object_.CudaRegion("stuck", 10), object_.IpcHandle()).ok());
  auto unregistered =
      std::async(std::launch::async, [&] { return memory.Unregister(kCuda, "stuck"); });
  devices->AwaitClosing();
  auto others = std::async(std::launch::async, [&] {
    EXPECT_TRUE(memory.Register(object_.Region("a", 10)).ok());
    EXPECT_EQ(memory.Register(object_.Region("b", 10)).code(), StatusCode::kResourceExhausted);
    EXPECT_TRUE(memory.Unregister(kSystem, "a").ok());
    EXPECT_TRUE(memory.Unregister(kSystem, "").ok());
  });
  EXPECT_EQ(others.wait_for(std::chrono::seconds(30)), std::future_status::ready);
  EXPECT_EQ(unregistered.wait_for(std::chrono::seconds(0)), std::future_status::timeout);
  devices->LetGo();
  EXPECT_TRUE(unregistered.get().ok());
}

TEST_F(CudaRegionsTest, WithoutAGpu_RegisterIsRefusedAndTheRestHasNothingToDo) {
  SharedMemory knows_none({.is_allowed = true});
  SharedMemory finds_none(
      {.is_allowed = true,
       .devices = std::make_shared<gpu::IpcDevices>([]() -> Result<std::unique_ptr<gpu::Api>> {
         return Unavailable("there is no CUDA driver on this machine");
       })});
  const auto refusal = [this](SharedMemory& memory) {
    return memory.RegisterCuda(object_.CudaRegion("r", 10), object_.IpcHandle()).ToString();
  };
  const std::string text =
      "INVALID_ARGUMENT: failed to register CUDA shared memory region: 'r', GPUs not supported: ";
  EXPECT_EQ(refusal(knows_none), text + "this program knows no GPUs");
  EXPECT_EQ(refusal(finds_none), text + "there is no CUDA driver on this machine");
  for (SharedMemory* memory : {&knows_none, &finds_none}) {
    EXPECT_EQ(memory->CheckCudaUsable().code(), StatusCode::kUnavailable);
    EXPECT_TRUE(memory->List(kCuda, "")->empty());
    EXPECT_TRUE(memory->Unregister(kCuda, "").ok());
  }
}

TEST_F(CudaRegionsTest, NotAllowed_NoGpuIsLookedFor) {
  bool is_opened = false;
  SharedMemory memory(
      {.devices = std::make_shared<gpu::IpcDevices>([&]() -> Result<std::unique_ptr<gpu::Api>> {
         is_opened = true;
         return Unavailable("");
       })});
  for (const Status& status :
       {memory.RegisterCuda(object_.CudaRegion("r", 10), object_.IpcHandle()),
        memory.CheckCudaUsable(), memory.Unregister(kCuda, ""), memory.List(kCuda, "").status()}) {
    EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  }
  EXPECT_FALSE(is_opened);
}

TEST_F(CudaRegionsTest, NameThatIsTooLong_IsRefusedInAFewBytes) {
  const Status status = RegisterCuda(std::string(30'000, 'n'));
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_LT(status.message().size(), 2000U);
}

}  // namespace
}  // namespace penstock
