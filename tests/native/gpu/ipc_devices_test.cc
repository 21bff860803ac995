// Memory of GPUs that other processes export, on a fake one: objects of POSIX shared memory are
// that memory.

#include "gpu/ipc_devices.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "testing/fake_clock.h"
#include "testing/fake_gpu.h"
#include "testing/quiet_log.h"
#include "testing/shm_object.h"

namespace penstock::gpu {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::span<const uint8_t> BytesOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

class IpcDevicesTest : public ::testing::Test {
 protected:
  std::unique_ptr<const SharedRegion> Open(const ShmObject& object, uint64_t size_bytes,
                                           int64_t device_id = 0) {
    auto opened = devices_->Open(object.CudaRegion("r", size_bytes, device_id), object.IpcHandle());
    EXPECT_TRUE(opened.ok()) << opened.status().ToString();
    return *std::move(opened);
  }
  std::string Refusal(const SharedRegionInfo& info, std::string_view handle) {
    return devices_->Open(info, handle).status().ToString();
  }
  static std::string Read(const SharedRegion& region, uint64_t offset, size_t size_bytes) {
    std::string bytes(size_bytes, '\0');
    const Status status =
        region.Read(offset, {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
    return status.ok() ? bytes : status.ToString();
  }
  FakeGpu& gpu() { return *gpu_; }

  int opens_ = 0;
  FakeGpu* gpu_ = nullptr;  // once it is open
  ShmObject object_{std::string_view("0123456789")};
  std::unique_ptr<IpcDevices> devices_ = std::make_unique<IpcDevices>(
      [this]() -> Result<std::unique_ptr<Api>> {
        opens_ += 1;
        auto opened = std::make_unique<FakeGpu>(FakeGpuOptions{.max_yields = 3, .devices = 2});
        gpu_ = opened.get();
        return std::unique_ptr<Api>(std::move(opened));
      },
      Clock::System(), IpcOptions{.chunk_bytes = 4});  // so that copies are several
};

const std::string kInvalid =
    "INVALID_ARGUMENT: failed to register shared memory region 'r': invalid args: ";

TEST_F(IpcDevicesTest, Region_IsReadAndWrittenWhereItLies) {
  const auto region = Open(object_, 10);
  EXPECT_EQ(Read(*region, 0, 10), "0123456789");
  EXPECT_EQ(Read(*region, 8, 2), "89");
  ASSERT_TRUE(region->Write(3, BytesOf("abc")).ok());
  EXPECT_EQ(object_.Read(10), "012abc6789");
  EXPECT_EQ(gpu().races(), std::vector<std::string>());
  EXPECT_EQ(gpu().pageable_copies(), 0);
}

TEST_F(IpcDevicesTest, Region_SaysHowOthersOpenIt) {
  const auto region = Open(object_, 8, /*device_id=*/1);
  const ExportedMemory& memory = *region->exported();
  EXPECT_EQ(std::string(memory.handle().begin(), memory.handle().end()), object_.IpcHandle());
  EXPECT_EQ(memory.device(), 1);
  EXPECT_EQ(memory.size_bytes(), 8U);
  EXPECT_EQ(std::string(memory.data(), memory.data() + 8), "01234567");
}

TEST_F(IpcDevicesTest, NoBytes_AreNoCall) {
  const auto region = Open(object_, 10);
  const int before = gpu().calls();
  EXPECT_EQ(Read(*region, 10, 0), "");
  EXPECT_TRUE(region->Write(10, {}).ok());
  EXPECT_EQ(gpu().calls(), before);
}

TEST_F(IpcDevicesTest, NothingIsOpened_BeforeItIsAskedFor) {
  EXPECT_EQ(opens_, 0);
  EXPECT_TRUE(devices_->CheckUsable().ok());
  EXPECT_TRUE(devices_->CheckUsable().ok());
  const auto region = Open(object_, 10);
  EXPECT_EQ(opens_, 1);
}

TEST_F(IpcDevicesTest, ApiThatDoesNotOpen_IsNotTriedAgain) {
  int tries = 0;
  IpcDevices none([&tries]() -> Result<std::unique_ptr<Api>> {
    tries += 1;
    return Unavailable("there is no CUDA driver on this machine");
  });
  for (const Status& status :
       {none.CheckUsable(), none.Open(object_.CudaRegion("r", 10), object_.IpcHandle()).status()}) {
    EXPECT_EQ(status.ToString(), "UNAVAILABLE: there is no CUDA driver on this machine");
  }
  EXPECT_EQ(tries, 1);
}

TEST_F(IpcDevicesTest, HandleThatIsNone_IsRefused) {
  const SharedRegionInfo info = object_.CudaRegion("r", 10);
  EXPECT_EQ(Refusal(info, "short"),
            kInvalid + "a handle is a cudaIpcMemHandle_t of 64 bytes, got 5");
  EXPECT_EQ(Refusal(info, std::string(65, 'x')),
            kInvalid + "a handle is a cudaIpcMemHandle_t of 64 bytes, got 65");
  EXPECT_THAT(Refusal(info, std::string(64, 'x')),
              HasSubstr(kInvalid + "the handle cannot be opened on device 0: cudaError"));
  EXPECT_EQ(Read(*Open(object_, 10), 0, 1), "0");  // that was no fault of the device
}

TEST_F(IpcDevicesTest, SizeOrDeviceThatCannotBe_IsRefusedAndNothingStaysOpen) {
  const auto refusal = [this](uint64_t size_bytes, int64_t device_id) {
    return Refusal(object_.CudaRegion("r", size_bytes, device_id), object_.IpcHandle());
  };
  EXPECT_EQ(refusal(0, 0), kInvalid + "the byte size is 0");
  EXPECT_EQ(refusal(11, 0), kInvalid + "byte size 11 reaches beyond the 10 bytes of its memory");
  EXPECT_EQ(refusal(UINT64_MAX, 0),
            kInvalid + "byte size 18446744073709551615 reaches beyond the 10 bytes of its memory");
  EXPECT_EQ(refusal(10, 2), kInvalid + "expected a device below 2, got 2");
  EXPECT_EQ(refusal(10, -1), kInvalid + "expected a device below 2, got -1");
  EXPECT_EQ(refusal(10, int64_t{1} << 32), kInvalid + "expected a device below 2, got 4294967296");
  EXPECT_EQ(gpu().live_objects(), 0U);
}

TEST_F(IpcDevicesTest, RegionThatGoes_ClosesItsMemoryAndStreamsAreUsedAgain) {
  for (int i = 0; i < 3; ++i) {
    const auto region = Open(object_, 10);
    EXPECT_EQ(Read(*region, 0, 1), "0");
    EXPECT_EQ(gpu().live_objects(), 4U);  // it, a stream, an event, pinned memory
  }
  EXPECT_EQ(gpu().live_objects(), 3U);
}

TEST_F(IpcDevicesTest, SameMemoryTwice_IsTwoRegions) {
  const auto first = Open(object_, 10);
  auto second = Open(object_, 4, /*device_id=*/1);
  ASSERT_TRUE(second->Write(0, BytesOf("ab")).ok());
  second.reset();
  EXPECT_EQ(Read(*first, 0, 4), "ab23");
}

TEST_F(IpcDevicesTest, RegionThatOutlivesThem_KeepsTheDevice) {
  const auto region = Open(object_, 10);
  devices_.reset();
  EXPECT_EQ(Read(*region, 0, 3), "012");
}

TEST_F(IpcDevicesTest, MemoryThatTheDeviceHasNot_IsResourceExhausted) {
  ASSERT_TRUE(devices_->CheckUsable().ok());
  gpu().FailCall("OpenIpcMemory", 1, Error::kMemoryAllocation);
  EXPECT_THAT(Refusal(object_.CudaRegion("r", 10), object_.IpcHandle()),
              HasSubstr("RESOURCE_EXHAUSTED: GPU 0: cannot open a client's memory"));
}

TEST_F(IpcDevicesTest, CopyThatFails_FailsOnceAndTheRegionGoesOn) {
  const auto region = Open(object_, 10);
  for (const char* call :
       {"SetDevice", "CreateStream", "CreateEvent", "AllocatePinned", "CopyAsync"}) {
    gpu().FailCall(call, 1, Error::kInvalidValue);
    EXPECT_EQ(Read(*region, 0, 1),
              "INTERNAL: GPU 0: cannot read shared memory region 'r': cudaError (1)");
  }
  EXPECT_EQ(Read(*region, 0, 1), "0");
}

TEST_F(IpcDevicesTest, NoPinnedMemory_IsResourceExhausted) {
  const auto region = Open(object_, 10);
  gpu().FailCall("AllocatePinned", 1, Error::kMemoryAllocation);
  EXPECT_THAT(Read(*region, 0, 1), HasSubstr("RESOURCE_EXHAUSTED: GPU 0: cannot read shared"));
}

TEST_F(IpcDevicesTest, LostDevice_FailsAllOfItsRegionsUnasked) {
  const auto region = Open(object_, 10);
  gpu().FaultWork(1, Error::kIllegalAddress);
  EXPECT_THAT(region->Write(0, BytesOf("x")).ToString(),
              AllOf(HasSubstr("UNAVAILABLE: GPU 0: cannot "),
                    HasSubstr(": cudaErrorIllegalAddress (700)")));  // whoever meets it first
  const int calls = gpu().calls();
  EXPECT_THAT(Read(*region, 0, 1), HasSubstr("UNAVAILABLE: GPU 0"));
  EXPECT_THAT(Refusal(object_.CudaRegion("s", 10), object_.IpcHandle()),
              HasSubstr("UNAVAILABLE: GPU 0"));
  EXPECT_EQ(gpu().calls(), calls);  // nobody asks a lost device
}

TEST_F(IpcDevicesTest, CopyWhoseEndIsNotKnown_LosesTheDevice) {
  const auto region = Open(object_, 10);
  gpu().FailCall("RecordEvent", 1, Error::kInvalidValue);
  EXPECT_THAT(Read(*region, 0, 10), HasSubstr("INTERNAL: GPU 0: cannot read"));
  EXPECT_THAT(Read(*region, 0, 1),
              HasSubstr("UNAVAILABLE: GPU 0: cannot tell when a copy is over"));
}

// What the copy writes at last is memory that nobody else was given.
TEST_F(IpcDevicesTest, CopyThatDoesNotEnd_LosesTheDeviceAtTheHangLimit) {
  const QuietLog quiet;
  for (const bool is_read : {true, false}) {
    FakeClock clock;
    FakeGpu* gpu = nullptr;
    IpcDevices devices(
        [&gpu]() -> Result<std::unique_ptr<Api>> {
          auto opened = std::make_unique<FakeGpu>();
          gpu = opened.get();
          return std::unique_ptr<Api>(std::move(opened));
        },
        clock, {.completion = {.spin_ns = 0, .hang_limit_ns = 1'000'000'000}});
    auto opened = devices.Open(object_.CudaRegion("r", 10), object_.IpcHandle());
    ASSERT_TRUE(opened.ok());
    const SharedRegion& region = **opened;
    std::string room(10, '.');
    Status status;
    gpu->HoldStreams();
    std::thread copier([&] {
      auto* bytes = reinterpret_cast<uint8_t*>(room.data());
      status = is_read ? region.Read(0, {bytes, 10}) : region.Write(0, {bytes, 10});
    });
    clock.AwaitWaiters(1);
    clock.Advance(1'000'000'001);
    copier.join();
    EXPECT_EQ(status.ToString(),
              "UNAVAILABLE: GPU 0: a copy is not over after 1000 ms, expected at most 1000");
    EXPECT_THAT(Read(region, 0, 1), HasSubstr("UNAVAILABLE: GPU 0: a copy is not over"));
    gpu->ReleaseStreams();
    opened = Result<std::unique_ptr<const SharedRegion>>(nullptr);
    EXPECT_EQ(gpu->live_objects(), 4U) << "a lost device's memory is left to it";
    EXPECT_EQ(room, std::string(10, '.'));
  }
}

TEST_F(IpcDevicesTest, ManyThreads_CopyAtATime) {
  constexpr int kThreads = 4;
  constexpr size_t kBytes = 32;
  ShmObject large(kThreads * kBytes);
  const auto region = Open(large, kThreads * kBytes);
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 20; ++round) {
        const std::string bytes(kBytes, static_cast<char>('a' + (i + round) % 26));
        if (!region->Write(i * kBytes, BytesOf(bytes)).ok()) ++wrong;
        if (Read(*region, i * kBytes, kBytes) != bytes) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(gpu().races(), std::vector<std::string>());
}

}  // namespace
}  // namespace penstock::gpu
