// A model on several devices: the first device's load, then the others' beside each other.

#include <gmock/gmock.h>

#include <thread>

#include "device_harness.h"

namespace penstock {
namespace {

using testing::HasSubstr;

// Makes `file` before it starts.
std::shared_ptr<DeviceWorker> WorkerThatTells(const std::string& device, const std::string& file) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.device = device;
  auto& arguments = options.launch.arguments;
  arguments.insert(arguments.begin(),
                   {"/bin/sh", "-c", StrCat("touch '", file, "'; exec \"$0\" \"$@\"")});
  return std::make_shared<DeviceWorker>(std::move(options));
}

class DeviceSeveralTest : public testing::Test {
 protected:
  Result<std::unique_ptr<DeviceModel>> Load(
      const std::vector<std::shared_ptr<DeviceWorker>>& workers,
      const std::map<std::string, std::string>& parameters = {}) {
    return DeviceModel::Load("model 'm' version 1", workers,
                             EncodeDeviceLoad({"device_fixture", {}, FixtureLoad("m", parameters)}),
                             {});
  }
  bool HasStarted() const { return std::filesystem::exists(scratch_.File("third")); }

  const ScratchDirectory scratch_;
  const std::shared_ptr<DeviceWorker> first_ = std::make_shared<DeviceWorker>(WorkerOfTests());
  const std::shared_ptr<DeviceWorker> second_ = std::make_shared<DeviceWorker>(WorkerOfTests());
  const std::shared_ptr<DeviceWorker> third_ = WorkerThatTells("GPU 2", scratch_.File("third"));
};

TEST_F(DeviceSeveralTest, LoadsBehindTheFirst_DoNotWaitForEachOther) {
  const auto other = MustLoadIn({second_}, FixtureLoad("other"));
  const pid_t pid = WorkerPid(*MustMake(*other));
  kill(pid, SIGSTOP);
  AwaitThat([pid] { return IsStopped(pid); });
  std::unique_ptr<DeviceModel> model;
  std::thread load([&] { model = *Load({first_, second_, third_}); });
  AwaitThat([this] { return HasStarted(); });
  kill(pid, SIGCONT);
  load.join();
  for (int i = 0; i < 3; ++i) {
    auto instance = MustMake(*model);
    EXPECT_EQ(RunRow(*instance, {1}).value(), std::vector<float>{1});
  }
}

TEST_F(DeviceSeveralTest, LoadThatTheFirstRefuses_IsTriedOnNoOther) {
  const std::string how = scratch_.Write("how", "reject");
  EXPECT_FALSE(Load({first_, third_}, {{"load_file", how}}).ok());
  EXPECT_FALSE(HasStarted());
}

TEST_F(DeviceSeveralTest, LoadThatAnotherRefuses_IsTheModelsReasonAndLeavesNothing) {
  DeviceWorkerOptions broken = WorkerOfTests();
  broken.device = "GPU 1";
  broken.launch.arguments = {"/bin/false"};
  const auto model = Load({first_, std::make_shared<DeviceWorker>(std::move(broken)), third_});
  EXPECT_THAT(model.status().ToString(), HasSubstr("GPU 1"));
  for (const auto& worker : {first_, third_}) MustLoadIn({worker}, FixtureLoad("m"));
}

}  // namespace
}  // namespace penstock
