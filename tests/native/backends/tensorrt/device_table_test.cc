// GPUs by number and by UUID, opened once.
#include "backends/tensorrt/device_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>

#include "base/strcat.h"
#include "testing/fake_clock.h"
#include "testing/fake_cpus.h"
#include "testing/fake_gpu.h"

namespace penstock::tensorrt {
namespace {

using testing::HasSubstr;

// The fake's devices differ in their last byte.
constexpr const char* kSecond = "GPU-00000000-0000-0000-0000-000000000001";

class DeviceTableTest : public testing::Test {
 protected:
  int Ordinal(const std::string& name) {
    const auto found = table_.Get(name);
    EXPECT_TRUE(found.ok()) << found.status().ToString();
    return found.ok() ? found->ordinal : -1;
  }
  Status Refusal(const std::string& name) { return table_.Get(name).status(); }

  FakeGpu gpu_{{.devices = 2}};
  DeviceTable table_{gpu_, Clock::System()};
};

TEST_F(DeviceTableTest, NumberAndUuid_NameTheSameDevice) {
  EXPECT_EQ(Ordinal("1"), 1);
  EXPECT_EQ(Ordinal(kSecond), 1);
  EXPECT_EQ(table_.Get("1")->device, table_.Get(kSecond)->device) << "it is opened once";
  EXPECT_EQ(Ordinal("0"), 0);
}

TEST_F(DeviceTableTest, UuidOfASlice_IsItsDevices) {
  constexpr const char* kSlice = "MIG-00000000-0000-0000-0000-000000000001";
  EXPECT_EQ(Ordinal(kSlice), 1);
  FakeGpu slices{{.devices = 2, .name = "Fake GPU MIG 1g.10gb"}};
  DeviceTable table{slices, Clock::System()};
  EXPECT_EQ(table.Get(kSlice)->ordinal, 1);
  EXPECT_THAT(std::string(table.Get("none").status().message()), HasSubstr(kSlice));
}

TEST_F(DeviceTableTest, UuidThatSeveralBeginWith_IsRefused) {
  const Status status = Refusal("GPU-0000");
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("several GPUs"));
}

TEST_F(DeviceTableTest, UnknownDevice_NamesWhatThereIs) {
  for (const char* name : {"GPU-77", "seven", "-1", "", "0x1"}) {
    const Status status = Refusal(name);
    EXPECT_EQ(status.code(), StatusCode::kNotFound) << name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(kSecond));
  }
  EXPECT_THAT(std::string(Refusal("2").message()), HasSubstr("this process sees 2"));
}

TEST_F(DeviceTableTest, DeviceThatCannotBeTaken_IsTriedAgainTheNextTime) {
  gpu_.FailCall("SetDevice", 1, gpu::Error::kMemoryAllocation);
  EXPECT_EQ(Refusal("0").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Ordinal("0"), 0);
}

// How long it may take is its model's to say (execution_limit_s), and its worker is killed then.
TEST_F(DeviceTableTest, BatchThatTakesLong_IsWaitedFor) {
  FakeClock clock;
  DeviceTable table{gpu_, clock};
  const auto found = table.Get("0");
  ASSERT_TRUE(found.ok());
  gpu::Stream stream = nullptr;
  gpu::Event event = nullptr;
  ASSERT_EQ(gpu_.CreateStream(&stream), gpu::Error::kSuccess);
  ASSERT_EQ(gpu_.CreateEvent(&event), gpu::Error::kSuccess);
  gpu_.HoldStreams();
  ASSERT_EQ(gpu_.RecordEvent(event, stream), gpu::Error::kSuccess);
  std::promise<Status> over;
  found->device->completion().Watch(
      {.events = {event}, .done = [&](const Status& status) { over.set_value(status); }});
  constexpr int64_t kAYearNs = int64_t{365} * 24 * 3600 * 1'000'000'000;
  clock.Advance(kAYearNs);
  clock.AwaitWaitersUntil(FakeClock::kStartNs + kAYearNs + 500'000);  // asked, and pauses
  gpu_.ReleaseStreams();
  EXPECT_EQ(gpu_.SynchronizeStream(stream), gpu::Error::kSuccess);
  clock.Advance(1'000'000'000);
  EXPECT_TRUE(over.get_future().get().ok());
  EXPECT_FALSE(found->device->health().is_faulted());
  EXPECT_EQ(gpu_.DestroyEvent(event), gpu::Error::kSuccess);
  EXPECT_EQ(gpu_.DestroyStream(stream), gpu::Error::kSuccess);
}

// In a device's worker the first one is the only one.
TEST_F(DeviceTableTest, ThreadsOfTheProcess_StayNearTheFirstDeviceThatIsOpened) {
  FakeCpus cpus;
  const auto all = FakeCpus::OfThisThread();
  if (all.size() == 1) GTEST_SKIP() << "this machine has one CPU";
  cpus.Write("fa4e:00:00.0", StrCat(all.back()));
  cpus.Write("fa4e:01:00.0", StrCat(all.front()));
  DeviceTable table(gpu_, Clock::System(), cpus.sysfs());
  gpu_.FailCall("SetDevice", 1, gpu::Error::kMemoryAllocation);
  EXPECT_FALSE(table.Get("1").ok());
  EXPECT_EQ(FakeCpus::OfThisThread(), all);
  ASSERT_TRUE(table.Get("0").ok());
  EXPECT_THAT(FakeCpus::OfThisThread(), testing::ElementsAre(all.back()));
  ASSERT_TRUE(table.Get("1").ok());
  EXPECT_THAT(FakeCpus::OfThisThread(), testing::ElementsAre(all.back()));
}

}  // namespace
}  // namespace penstock::tensorrt
