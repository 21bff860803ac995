#include "gpu/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "testing/fake_gpu.h"
#include "testing/quiet_log.h"

namespace penstock::gpu {
namespace {

using ::testing::HasSubstr;

const DeviceOptions kOptions{.pinned = {{.block_bytes = 256, .blocks = 2}}};

TEST(DeviceTest, Open_TakesPinnedMemoryAndKnowsTheDevice) {
  FakeGpu gpu;
  {
    const auto device = Device::Open(gpu, Clock::System(), kOptions);
    ASSERT_TRUE(device.ok());
    EXPECT_EQ((*device)->properties().name, "Fake GPU");
    EXPECT_EQ((*device)->pool().usage().blocks, 2U);
    EXPECT_FALSE((*device)->health().is_faulted());
  }
  EXPECT_EQ(gpu.live_objects(), 0U);
}

TEST(DeviceTest, DeviceThatIsNotThere_IsNamed) {
  FakeGpu gpu;
  DeviceOptions options = kOptions;
  options.completion.device = 5;
  const auto device = Device::Open(gpu, Clock::System(), options);
  EXPECT_EQ(device.status().code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(device.status().message()), HasSubstr("GPU 5: cannot take the device"));
}

TEST(DeviceTest, AnyCallThatFails_FailsOpenAndGivesBackWhatWasTaken) {
  for (int nth = 1; nth <= 2; ++nth) {  // SetDevice, AllocatePinned
    FakeGpu gpu;
    gpu.FailCall("", nth, Error::kMemoryAllocation);
    const auto device = Device::Open(gpu, Clock::System(), kOptions);
    EXPECT_EQ(device.status().code(), StatusCode::kResourceExhausted) << nth;
    EXPECT_EQ(gpu.live_objects(), 0U);
  }
}

TEST(DeviceTest, LostDevice_SaysWhyAndKeepsItsPinnedMemory) {
  const QuietLog quiet;
  FakeGpu gpu;
  {
    const auto device = Device::Open(gpu, Clock::System(), kOptions);
    ASSERT_TRUE(device.ok());
    (*device)->health().Fault("it is on fire");
    EXPECT_EQ((*device)->health().fault().ToString(), "UNAVAILABLE: GPU 0: it is on fire");
  }
  EXPECT_EQ(gpu.live_objects(), 1U) << "the device may still write there";
}

// As another backend of the process may have, which has a Device of its own.
TEST(DeviceTest, LossThatSomebodyElseMet_IsFoundWhenItIsAsked) {
  const QuietLog quiet;
  FakeGpu gpu;
  const auto device = Device::Open(gpu, Clock::System(), {});
  ASSERT_TRUE(device.ok());
  EXPECT_TRUE((*device)->Answers());
  gpu.FailCall("MemoryInfo", 1, Error::kIllegalAddress);
  EXPECT_FALSE((*device)->Answers());
  EXPECT_TRUE((*device)->health().is_faulted());
}

}  // namespace
}  // namespace penstock::gpu
