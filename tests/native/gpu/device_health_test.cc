#include "gpu/device_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/strcat.h"
#include "testing/fake_gpu.h"

namespace penstock::gpu {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Owner {
  FakeGpu gpu;
  DeviceHealth health{gpu, "GPU 3"};
};

TEST(DeviceHealthTest, Success_IsOk) {
  Owner owner;
  EXPECT_TRUE(owner.health.Check(Error::kSuccess, "copy").ok());
  EXPECT_FALSE(owner.health.is_faulted());
}

TEST(DeviceHealthTest, PlainError_FailsTheCallAndNotTheDevice) {
  Owner owner;
  const Status status = owner.health.Check(Error::kInvalidValue, "copy the inputs of resnet");
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("GPU 3"), HasSubstr("copy the inputs of resnet"), HasSubstr("(1)")));
  EXPECT_FALSE(owner.health.is_faulted());
}

TEST(DeviceHealthTest, NoMemory_IsResourceExhausted) {
  Owner owner;
  EXPECT_EQ(owner.health.Check(Error::kMemoryAllocation, "allocate").code(),
            StatusCode::kResourceExhausted);
  EXPECT_FALSE(owner.health.is_faulted());
}

TEST(DeviceHealthTest, PlainError_IsNotLeftBehindForTheNextLaunch) {
  Owner owner;
  EXPECT_NE(owner.gpu.DestroyStream(nullptr), Error::kSuccess);
  static_cast<void>(owner.health.Check(Error::kInvalidResourceHandle, "destroy"));
  EXPECT_EQ(owner.gpu.TakeLastError(), Error::kSuccess);
}

// Lines of the log that say so.
size_t Losses(const std::string& log) {
  constexpr std::string_view kLost = "is lost to this process";
  size_t losses = 0;
  for (size_t at = log.find(kLost); at != std::string::npos; at = log.find(kLost, at + 1)) ++losses;
  return losses;
}

TEST(DeviceHealthTest, StickyError_FaultsTheDeviceOnce) {
  Owner owner;
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(owner.health.Check(Error::kIllegalAddress, "run").code(), StatusCode::kUnavailable);
  EXPECT_EQ(owner.health.Check(Error::kLaunchFailure, "run").code(), StatusCode::kUnavailable);
  owner.health.Fault("no answer");
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(owner.health.is_faulted());
  EXPECT_EQ(Losses(log), 1U) << log;
  EXPECT_THAT(log, HasSubstr("cudaErrorIllegalAddress"));
  EXPECT_THAT(std::string(owner.health.fault().message()), HasSubstr("cudaErrorIllegalAddress"));
}

TEST(DeviceHealthTest, ThreadsThatMeetALossAtOnce_FaultTheDeviceOnce) {
  Owner owner;
  ::testing::internal::CaptureStderr();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&owner, i] {
      owner.health.Fault(StrCat("thread ", i));
      EXPECT_TRUE(owner.health.is_faulted());
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string log = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(Losses(log), 1U) << log;
  EXPECT_THAT(log, HasSubstr(std::string(owner.health.fault().message()))) << "it is the first's";
}

TEST(DeviceHealthTest, UnknownError_LosesTheDeviceWhereItStays) {
  Owner owner;
  EXPECT_EQ(owner.health.Check(Error::kUnknown, "register host memory").code(),
            StatusCode::kInternal);
  EXPECT_FALSE(owner.health.is_faulted());
  owner.gpu.FailCall("MemoryInfo", 1, Error::kUnknown);
  EXPECT_EQ(owner.health.Check(Error::kUnknown, "run").code(), StatusCode::kUnavailable);
  EXPECT_TRUE(owner.health.is_faulted());
}

TEST(DeviceHealthTest, Fault_IsUnavailableWithItsReason) {
  Owner owner;
  owner.health.Fault("no answer");
  EXPECT_EQ(owner.health.fault().code(), StatusCode::kUnavailable);
  EXPECT_EQ(owner.health.fault().message(), "GPU 3: no answer");
}

TEST(DeviceHealthTest, EngineThatFails_IsAskedOfTheRuntime) {
  Owner owner;
  EXPECT_EQ(owner.health.CheckEngine(Internal("no"), "run").message(), "no");
  EXPECT_FALSE(owner.health.is_faulted());
  owner.gpu.FailCall("", 1, Error::kLaunchFailure);
  EXPECT_EQ(owner.gpu.SetDevice(0), Error::kLaunchFailure);
  EXPECT_TRUE(owner.health.CheckEngine(Status::Ok(), "run").ok());
  EXPECT_EQ(owner.health.CheckEngine(Internal("no"), "run").code(), StatusCode::kUnavailable);
  EXPECT_TRUE(owner.health.is_faulted());
}

// As TensorRT's, which has a runtime of its own: ours remembers nothing of it.
TEST(DeviceHealthTest, LossThatOnlyTheEnginesRuntimeMet_IsFound) {
  Owner owner;
  owner.gpu.FailCall("SetDevice", 1, Error::kIllegalAddress);
  std::thread([&] { EXPECT_EQ(owner.gpu.SetDevice(0), Error::kIllegalAddress); }).join();
  EXPECT_EQ(owner.gpu.TakeLastError(), Error::kSuccess);
  const Status status = owner.health.CheckEngine(Internal("no"), "run");
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cudaErrorIllegalAddress"));
  EXPECT_TRUE(owner.health.is_faulted());
}

TEST(DeviceHealthTest, EnginesLackOfMemory_IsItsOwnAnswer) {
  Owner owner;
  EXPECT_EQ(owner.health.CheckEngine(ResourceExhausted("no room"), "run").message(), "no room");
  owner.gpu.FailCall("MemoryInfo", 1, Error::kInvalidValue);
  EXPECT_EQ(owner.health.CheckEngine(ResourceExhausted("no room"), "run").message(), "no room");
  EXPECT_EQ(owner.gpu.TakeLastError(), Error::kSuccess);
}

TEST(DeviceHealthTest, EngineThatAskedForAnEvent_FailsInItsOwnWords) {
  Owner owner;
  owner.gpu.FailCall("SetDevice", 1, Error::kNotReady);
  EXPECT_EQ(owner.gpu.SetDevice(0), Error::kNotReady);  // what the runtime remembers now
  EXPECT_EQ(owner.health.CheckEngine(Internal("no"), "run").message(), "no");
  EXPECT_FALSE(owner.health.is_faulted());
}

TEST(GpuErrorTest, StickyErrors_AreThoseThatLoseTheContext) {
  for (const int code :
       {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911}) {
    EXPECT_TRUE(IsSticky(static_cast<Error>(code))) << code;
  }
  for (const int code : {0, 1, 2, 35, 46, 100, 101, 400, 600, 701, 708, 713, 720, 900, 901, 999}) {
    EXPECT_FALSE(IsSticky(static_cast<Error>(code))) << code;
  }
}

}  // namespace
}  // namespace penstock::gpu
