// When a device's worker is started again, and when no more.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "device_harness.h"

namespace penstock {
namespace {

using testing::HasSubstr;

std::shared_ptr<DeviceWorker> WorkerWithRestarts(uint32_t most) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.restarts.max_restarts = most;
  return std::make_shared<DeviceWorker>(std::move(options));
}

std::string WhyNot(BackendInstance& instance) {
  return std::string(RunRow(instance, {1}).status().message());
}

TEST(DeviceBudgetTest, SpentBudget_IsAReasonAndTheNextLoadBringsAllBack) {
  const auto worker = WorkerWithRestarts(1);
  const auto model = MustLoadIn({worker}, FixtureLoad("m"));
  const auto instance = MustMake(*model);
  for (int i = 0; i < 2; ++i) {
    AwaitAvailable(*instance, true);
    EXPECT_EQ(RunRow(*instance, {-1}).status().code(), StatusCode::kUnavailable);
  }
  const std::string spent =
      "model 'm' version 1: the worker of GPU 0 exited with code 7; it has ended more than 1 times "
      "within 300 s, and is started again when they are over, or when a model of it is loaded";
  AwaitThat([&] { return WhyNot(*instance).find("are over") != std::string::npos; });
  EXPECT_EQ(WhyNot(*instance), spent);
  EXPECT_FALSE(instance->is_available());
  EXPECT_FALSE(model->CreateInstance({"j"}).ok());
  const auto other = MustLoadIn({worker}, FixtureLoad("n"));
  AwaitAvailable(*instance, true);
  EXPECT_EQ(*RunRow(*instance, {3}), std::vector<float>{3});
  EXPECT_EQ(*RunRow(*MustMake(*other), {4}), std::vector<float>{4});
}

TEST(DeviceBudgetTest, SpentBudget_IsThereAgainWhenItsWindowIsOver) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.restarts = {.max_restarts = 1, .window_ns = kNsPerS};
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  const auto model = MustLoadIn({worker}, FixtureLoad("m"));
  const auto instance = MustMake(*model);
  uint64_t restarts = 0;
  do {  // until both ends are within a window, on a machine however busy
    AwaitAvailable(*instance, true);
    restarts = worker->restarts();
    EXPECT_EQ(RunRow(*instance, {-1}).status().code(), StatusCode::kUnavailable);
    AwaitThat([&] {
      return instance->is_available() || WhyNot(*instance).find("are over") != std::string::npos;
    });
  } while (instance->is_available());
  AwaitAvailable(*instance, true);
  EXPECT_EQ(*RunRow(*instance, {3}), std::vector<float>{3});
  EXPECT_EQ(worker->restarts(), restarts + 1);
}

TEST(DeviceBudgetTest, NoBudget_IsNoRestart) {
  const auto worker = WorkerWithRestarts(0);
  const auto model = MustLoadIn({worker}, FixtureLoad("m"));
  const auto instance = MustMake(*model);
  EXPECT_FALSE(RunRow(*instance, {-2}).ok());
  AwaitThat([&] {
    return WhyNot(*instance).find("not started again before a model of it is loaded") !=
           std::string::npos;
  });
  EXPECT_EQ(instance->restarts(), 0);
}

TEST(DeviceBudgetTest, ProcessThatDoesNotEnd_HoldsUpNobodyAndIsReplacedOnceItHas) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.launch.end_signal = 0;  // as if the driver held it: to kill it does nothing
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  const ScratchDirectory scratch;
  auto model = MustLoadIn({worker}, FixtureLoad("m", {{"file", scratch.File("never")}}), 0.1);
  auto other = MustLoadIn({worker}, FixtureLoad("n", {{"file", scratch.File("never")}}));
  auto hangs = MustMake(*model);
  auto waits = MustMake(*other);
  const pid_t pid = WorkerPid(*hangs);
  Status in_flight;
  std::thread thread([&] { in_flight = RunRow(*waits, {-7}).status(); });
  AwaitThat([&] { return std::filesystem::exists(scratch.File("never.waiting")); });
  EXPECT_EQ(RunRow(*hangs, {-3}).status().ToString(),
            "UNAVAILABLE: model 'm' version 1: the worker of GPU 0 was killed and does not end "
            "while it ran the "
            "batch");
  thread.join();
  EXPECT_EQ(in_flight.code(), StatusCode::kUnavailable);
  EXPECT_FALSE(hangs->is_available());
  EXPECT_EQ(WhyNot(*waits),
            "model 'n' version 1: the worker of GPU 0 was killed and does not end and is being "
            "started again");
  kill(pid, SIGKILL);
  AwaitAvailable(*hangs, true);
  AwaitAvailable(*waits, true);
  EXPECT_EQ(*RunRow(*waits, {3}), std::vector<float>{3});
  const pid_t last = WorkerPid(*waits);
  hangs.reset();
  waits.reset();
  model.reset();
  other.reset();
  kill(last, SIGKILL);
}

TEST(DeviceBudgetTest, LoadsBehindAProcessThatDoesNotEnd_FailAndTheWorkerCanGo) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.launch.end_signal = 0;
  options.end_limit_ns = kNsPerS;
  auto worker = std::make_shared<DeviceWorker>(std::move(options));
  const ScratchDirectory scratch;
  auto model = MustLoadIn({worker}, FixtureLoad("n"));
  auto instance = MustMake(*model);
  const pid_t pid = WorkerPid(*instance);
  const LoadOptions hangs = FixtureLoad("m", {{"load_file", scratch.Write("how", "hang")}});
  for (int i = 0; i < 2; ++i) {
    const auto part = worker->Add({.label = "model 'm' version 1",
                                   .document = EncodeDeviceLoad({"device_fixture", {}, hangs}),
                                   .load_limit_ns = 100'000'000});
    EXPECT_EQ(part.status().ToString(),
              "UNAVAILABLE: model 'm' version 1: the worker of GPU 0 was killed and does not end");
  }
  EXPECT_FALSE(instance->is_available());
  instance.reset();
  model.reset();
  worker.reset();  // would wait for ever
  kill(pid, SIGKILL);
}

TEST(DeviceBudgetTest, ReloadOnADeviceThatIsNotThereYet_IsTriedAgain) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.restarts = {.max_restarts = 1 << 20, .first_delay_ns = 0, .max_delay_ns = 0};
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  const ScratchDirectory scratch;
  const auto model = MustLoadIn({worker}, FixtureLoad("m", {{"load_file", scratch.File("how")}}));
  const auto instance = MustMake(*model);
  scratch.Write("how", "lost");
  EXPECT_FALSE(RunRow(*instance, {-1}).ok());
  AwaitThat([&] { return worker->restarts() > 3; });
  EXPECT_THAT(WhyNot(*instance), HasSubstr("the worker of GPU 0 "));
  scratch.Write("how", "well");
  AwaitAvailable(*instance, true);
  EXPECT_EQ(*RunRow(*instance, {3}), std::vector<float>{3});
}

TEST(DeviceBudgetTest, WorkerThatIsGone_UsesNoMemory) {
  const auto worker = WorkerWithRestarts(0);
  const ScratchDirectory scratch;
  LoadOptions options = FixtureLoad("p", {{"kind", "plan"}, {"lanes", "1"}});
  options.path = scratch.Write("model.plan", "fake-plan");
  const auto model = MustLoadIn({worker}, options);
  const auto echo = MustLoadIn({worker}, FixtureLoad("m"));
  const auto plan = MustMake(*model);
  const auto instance = MustMake(*echo);
  AwaitThat([&] { return !model->device_use().empty(); });
  EXPECT_GT(model->device_use().at(0).memory_bytes, 0);
  EXPECT_EQ(model->device_use().at(0).id, -1);  // this worker's device has no number
  EXPECT_FALSE(RunRow(*instance, {-1}).ok());
  AwaitAvailable(*plan, false);
  EXPECT_EQ(model->device_use().at(0).memory_bytes, 0);
}

TEST(DeviceBudgetTest, ProgramThatDoesNotStart_FailsTheLoad) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.launch.arguments = {"/nothing/penstock_device_worker"};
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  const auto part = worker->Add({.label = "model 'm' version 1", .document = "?"});
  EXPECT_EQ(part.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(part.status().message()), HasSubstr("cannot be started"));
}

TEST(DeviceBudgetTest, ProgramThatEndsAtOnce_FailsTheLoadAndThoseBehindIt) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.launch.arguments = {"/bin/false"};
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  for (int i = 0; i < 3; ++i) {
    const auto part = worker->Add({.label = "model 'm' version 1", .document = "?"});
    EXPECT_EQ(part.status().ToString(),
              "UNAVAILABLE: model 'm' version 1: the worker of GPU 0 exited with code 1 while it "
              "loaded the model");
  }
}

TEST(DeviceBudgetTest, Process_IsGivenAConnectionAndNothingBefore) {
  DeviceWorkerOptions options = WorkerOfTests();
  // Ends with the kind of its first packet.
  options.launch.arguments = {"/bin/sh", "-c",
                              StrCat("exit $(od -An -tu1 -N1 <&", kWorkerSocketFd, ")")};
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  const auto part = worker->Add({.label = "model 'm' version 1", .document = "?"});
  EXPECT_THAT(std::string(part.status().message()),
              HasSubstr(StrCat("exited with code ", static_cast<int>(WorkerPacketKind::kOpen))));
}

TEST(DeviceBudgetTest, DocumentThatCannotBeRead_IsRefused) {
  const auto worker = WorkerWithRestarts(1);
  const auto part = worker->Add({.label = "model 'm' version 1", .document = "?"});
  EXPECT_EQ(part.status().ToString(), "INVALID_ARGUMENT: a load that cannot be read");
}

}  // namespace
}  // namespace penstock
