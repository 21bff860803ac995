#include "gpu/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "testing/fake_gpu.h"
#include "testing/quiet_log.h"

namespace penstock::gpu {
namespace {

using ::testing::HasSubstr;

TEST(DeviceTest, Open_KnowsTheDevice) {
  FakeGpu gpu;
  {
    const auto device = Device::Open(gpu, Clock::System(), {});
    ASSERT_TRUE(device.ok());
    EXPECT_EQ((*device)->properties().name, "Fake GPU");
    EXPECT_FALSE((*device)->health().is_faulted());
  }
  EXPECT_EQ(gpu.live_objects(), 0U);
}

TEST(DeviceTest, DeviceThatIsNotThere_IsNamed) {
  FakeGpu gpu;
  const auto device = Device::Open(gpu, Clock::System(), {.device = 5});
  EXPECT_EQ(device.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(device.status().message()), HasSubstr("GPU 5: cannot take the device"));
}

TEST(DeviceTest, DeviceThatIsFull_FailsOpen) {
  FakeGpu gpu;
  gpu.FailCall("SetDevice", 1, Error::kMemoryAllocation);
  const auto device = Device::Open(gpu, Clock::System(), {});
  EXPECT_EQ(device.status().code(), StatusCode::kResourceExhausted);
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
