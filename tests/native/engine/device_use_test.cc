// What a version tells of where it runs, while it comes, serves and goes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <utility>

#include "engine_harness.h"

namespace penstock {
namespace {

FakeModelSpec OnGpu(std::atomic<uint64_t>& runs, std::atomic<int>* live_models = nullptr) {
  FakeModelSpec model{IdentitySignature(), &Echo};
  model.live_models = live_models;
  model.runs_on = "GPU 0 (Fake GPU)";
  model.device_use = [&runs] {
    DeviceUse use;
    use.name = "Fake GPU";
    use.uncaptured_runs = runs.load();
    return std::vector<DeviceUse>{use};
  };
  return model;
}

TEST(DeviceUseTest, CpuModel_HasNoDevices) {
  EngineHarness harness;
  const auto version = harness.Create(IdentitySpec());
  EXPECT_EQ(version->runs_on(), "CPU");
  EXPECT_THAT(version->device_use(), testing::IsEmpty());
}

TEST(DeviceUseTest, Version_TellsWhatItsModelTellsNow) {
  std::atomic<uint64_t> runs{1};
  EngineHarness harness;
  auto version =
      harness.engine.CreateVersion(std::make_shared<FakeModel>(OnGpu(runs)), IdentitySpec());
  ASSERT_TRUE(version.ok()) << version.status().ToString();
  EXPECT_EQ((*version)->runs_on(), "GPU 0 (Fake GPU)");
  ASSERT_EQ((*version)->device_use().size(), 1U);
  EXPECT_EQ((*version)->device_use()[0].uncaptured_runs, 1U);
  runs = 7;
  EXPECT_EQ((*version)->device_use()[0].uncaptured_runs, 7U);
}

TEST(DeviceUseTest, DrainedVersion_HasFreedItsModelAndTellsOfNoDevice) {
  std::atomic<uint64_t> runs{1};
  std::atomic<int> live_models{0};
  EngineHarness harness;
  auto version = harness.engine.CreateVersion(
      std::make_shared<FakeModel>(OnGpu(runs, &live_models)), IdentitySpec());
  ASSERT_TRUE(version.ok()) << version.status().ToString();
  harness.engine.Start(*version);
  EXPECT_TRUE(harness.engine.Drain(*version, kLongNs));
  EXPECT_EQ(live_models.load(), 0);
  EXPECT_THAT((*version)->device_use(), testing::IsEmpty());
  EXPECT_EQ((*version)->runs_on(), "GPU 0 (Fake GPU)");
}

// Under ThreadSanitizer and AddressSanitizer: who asks never holds the model's last reference.
TEST(DeviceUseTest, AskedWhileItIsDrained_NeverAsksAModelThatHasGone) {
  std::atomic<uint64_t> runs{1};
  EngineHarness harness;
  for (int i = 0; i < 20; ++i) {
    auto version =
        harness.engine.CreateVersion(std::make_shared<FakeModel>(OnGpu(runs)), IdentitySpec());
    ASSERT_TRUE(version.ok()) << version.status().ToString();
    harness.engine.Start(*version);
    std::thread asker([&] {
      while (!(*version)->device_use().empty()) {
      }
    });
    EXPECT_TRUE(harness.engine.Drain(*version, kLongNs));
    asker.join();
  }
}

}  // namespace
}  // namespace penstock
