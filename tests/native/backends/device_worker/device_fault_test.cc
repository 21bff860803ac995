// What ends a device's worker, and what comes of it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s

#include <thread>

#include "device_harness.h"

namespace penstock {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

struct Fault {
  const char* name;
  float value;  // that a batch begins with
  const char* how;
  const char* limit_s = "60";
};

class DeviceFaultTest : public testing::Test {
 protected:
  DeviceWorkers workers_{DeviceDirectories()};
};

class DeviceFaults : public DeviceFaultTest, public testing::WithParamInterface<Fault> {};

TEST_P(DeviceFaults, EndEverythingInFlightAndTheWorkerComesBack) {
  const ScratchDirectory scratch;
  const auto model = MustLoad(workers_, FixtureLoad("m", {{"execution_limit_s", GetParam().limit_s},
                                                          {"file", scratch.File("never")}}));
  const auto other_model = MustLoad(workers_, FixtureLoad("n", {{"file", scratch.File("never")}}));
  const auto instance = MustMake(*model);
  const auto other = MustMake(*other_model);
  const pid_t pid = WorkerPid(*instance);
  Status in_flight;
  std::thread waits([&] { in_flight = RunRow(*other, {-7}).status(); });
  AwaitThat([&] { return std::filesystem::exists(scratch.File("never.waiting")); });
  const Status status = RunRow(*instance, {GetParam().value}).status();
  waits.join();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              StartsWith("model 'm' version 1: the worker of GPU 0 "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().how));
  EXPECT_EQ(in_flight.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(in_flight.message()),
              StartsWith("model 'n' version 1: the worker of GPU"));
  AwaitAvailable(*instance, true);
  AwaitAvailable(*other, true);
  EXPECT_EQ(*RunRow(*instance, {5}), std::vector<float>{5});
  EXPECT_EQ(*RunRow(*other, {6}), std::vector<float>{6});
  EXPECT_NE(WorkerPid(*instance), pid);
  EXPECT_EQ(instance->restarts(), 1);
}

INSTANTIATE_TEST_SUITE_P(
    Faults, DeviceFaults,
    testing::Values(Fault{"exits", -1, "exited with code 7 while it ran the batch"},
                    Fault{"crashes", -2, "was killed by SIGSEGV while it ran the batch"},
                    Fault{"hangs", -3,
                          "was killed, for a batch of model 'm' version 1 took longer than 0.2 s",
                          "0.2"},
                    Fault{"loses_the_device", -4, "lost the device and ended"},
                    Fault{"writes_nonsense", -8,
                          "was killed, for it broke the protocol: a packet of another size"}),
    [](const auto& info) { return std::string(info.param.name); });

// A batch of a plan, whose x are all that.
Status RunPlan(BackendInstance& instance, float first) {
  const std::vector<float> x(16, first), b{2};
  std::vector<BatchInput> inputs;
  for (const auto* values : {&x, &b}) {
    const std::span bytes(reinterpret_cast<const uint8_t*>(values->data()),
                          values->size() * sizeof(float));
    const Shape shape{1, static_cast<int64_t>(values->size())};
    inputs.push_back({inputs.size(), {"", DataType::kFp32, shape, bytes}});
  }
  const size_t wanted[] = {0};
  std::vector<BatchOutput> outputs;
  return instance.Execute(inputs, wanted, &outputs);
}

TEST_F(DeviceFaultTest, StickyErrorOfTheGpu_EndsTheWorkerAndThePlanIsServedAgain) {
  const ScratchDirectory scratch;
  LoadOptions options = FixtureLoad("p", {{"kind", "plan"}, {"lanes", "1"}});
  options.path = scratch.Write("model.plan", "fake-plan");
  const auto model = MustLoad(workers_, options);
  const auto instance = MustMake(*model);
  ASSERT_TRUE(RunPlan(*instance, 1).ok()) << RunPlan(*instance, 1).ToString();
  const Status lost = RunPlan(*instance, -4);
  EXPECT_EQ(lost.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(lost.message()), HasSubstr("the worker of GPU 0 lost the device"));
  AwaitAvailable(*instance, true);
  EXPECT_TRUE(RunPlan(*instance, 1).ok());
}

TEST_F(DeviceFaultTest, CopyThatDoesNotEnd_IsOverWithinTheExecutionLimit) {
  const ScratchDirectory scratch;
  LoadOptions options =
      FixtureLoad("p", {{"kind", "plan"}, {"lanes", "1"}, {"execution_limit_s", "0.3"}});
  options.path = scratch.Write("model.plan", "fake-plan");
  const auto model = MustLoad(workers_, options);
  const auto instance = MustMake(*model);
  const Status late = RunPlan(*instance, -12);
  EXPECT_EQ(
      late.ToString(),
      "UNAVAILABLE: model 'p' version 1: the worker of GPU 0 was killed, for a batch of model "
      "'p' version 1 took longer than 0.3 s while it ran the batch");
  AwaitAvailable(*instance, true);
  EXPECT_TRUE(RunPlan(*instance, 1).ok());
}

TEST_F(DeviceFaultTest, WorkerThatIsKilledOrStopped_ComesBack) {
  const auto model = MustLoad(workers_, FixtureLoad("m", {{"execution_limit_s", "0.2"}}));
  const auto instance = MustMake(*model);
  kill(WorkerPid(*instance), SIGKILL);
  AwaitThat([&] { return instance->restarts() == 1 && instance->is_available(); });
  EXPECT_EQ(*RunRow(*instance, {5}), std::vector<float>{5});
  const pid_t pid = WorkerPid(*instance);
  kill(pid, SIGSTOP);
  AwaitThat([pid] { return IsStopped(pid); });
  EXPECT_EQ(RunRow(*instance, {5}).status().code(), StatusCode::kUnavailable);
  AwaitAvailable(*instance, true);
  EXPECT_EQ(*RunRow(*instance, {5}), std::vector<float>{5});
}

// As one does that is just ending: how is to be said then, and is not known yet.
TEST_F(DeviceFaultTest, WorkerThatTakesNoBatch_IsGivenAMomentToEndByItself) {
  const auto model = MustLoad(workers_, FixtureLoad("m"));
  const auto instance = MustMake(*model);
  EXPECT_EQ(*RunRow(*instance, {-11}), std::vector<float>{-11});
  EXPECT_EQ(RunRow(*instance, {5}).status().ToString(),
            "UNAVAILABLE: model 'm' version 1: the worker of GPU 0 was killed, for it closed a "
            "connection while it ran the batch");
  AwaitAvailable(*instance, true);
  EXPECT_EQ(*RunRow(*instance, {5}), std::vector<float>{5});
}

TEST_F(DeviceFaultTest, WhileItsDeviceIsAway_AnotherTakesTheBatch) {
  const ScratchDirectory scratch;
  const auto model = MustLoad(
      workers_,
      FixtureLoad("m", {{"load_file", scratch.File("how")}, {"load_limit_s", "60"}}, {"0", "1"}));
  const auto first = MustMake(*model);
  const auto second = MustMake(*model);
  scratch.Write("how", "reject");
  EXPECT_EQ(RunRow(*first, {-1}).status().code(), StatusCode::kUnavailable);
  AwaitThat([&] { return first->restarts() == 1; });
  EXPECT_FALSE(first->is_available());
  EXPECT_EQ(*RunRow(*first, {3}), std::vector<float>{3});
  EXPECT_EQ(*RunRow(*second, {4}), std::vector<float>{4});
}

TEST_F(DeviceFaultTest, ReloadThatFails_FailsItsModelAlone) {
  const ScratchDirectory scratch;
  const auto bad = MustLoad(workers_, FixtureLoad("m", {{"load_file", scratch.File("how")}}));
  const auto good = MustLoad(workers_, FixtureLoad("n"));
  const auto lost = MustMake(*bad);
  const auto kept = MustMake(*good);
  scratch.Write("how", "refuse");  // there is no memory for it any more
  EXPECT_EQ(RunRow(*kept, {-2}).status().code(), StatusCode::kUnavailable);
  AwaitAvailable(*kept, true);
  EXPECT_EQ(*RunRow(*kept, {3}), std::vector<float>{3});
  EXPECT_FALSE(lost->is_available());
  const Status status = RunRow(*lost, {3}).status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("it could not be loaded again on GPU 0"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("deliberate refusal"));
}

TEST_F(DeviceFaultTest, ModelThatChanged_IsNotServedAsTheOldOne) {
  const ScratchDirectory scratch;
  const auto model = MustLoad(workers_, FixtureLoad("m", {{"load_file", scratch.File("how")}}));
  const auto instance = MustMake(*model);
  scratch.Write("how", "change");
  EXPECT_EQ(RunRow(*instance, {-2}).status().code(), StatusCode::kUnavailable);
  AwaitThat([&] {
    const std::string text(RunRow(*instance, {3}).status().message());
    return text.find("the model's file has changed: load it again") != std::string::npos;
  });
}

TEST_F(DeviceFaultTest, ReloadThatCrashesTwice_IsLeftOutAndTheOthersComeBack) {
  const ScratchDirectory scratch;
  const auto bad = MustLoad(workers_, FixtureLoad("m", {{"load_file", scratch.File("how")}}));
  const auto good = MustLoad(workers_, FixtureLoad("n"));
  const auto lost = MustMake(*bad);
  const auto kept = MustMake(*good);
  scratch.Write("how", "crash");
  EXPECT_EQ(RunRow(*kept, {-2}).status().code(), StatusCode::kUnavailable);
  AwaitAvailable(*kept, true);
  EXPECT_EQ(*RunRow(*kept, {3}), std::vector<float>{3});
  EXPECT_THAT(std::string(RunRow(*lost, {3}).status().message()),
              HasSubstr("was killed by SIGSEGV while it loaded the model"));
}

TEST_F(DeviceFaultTest, FirstLoads_FailAsTheyDo) {
  const ScratchDirectory scratch;
  const auto good = MustLoad(workers_, FixtureLoad("n"));
  const auto kept = MustMake(*good);
  const auto load = [&](const char* how) {
    return workers_
        .Load("device_fixture", {},
              FixtureLoad("m", {{"load_file", scratch.Write("how", how)}, {"load_limit_s", "0.3"}}))
        .status();
  };
  EXPECT_EQ(load("refuse").ToString(), "RESOURCE_EXHAUSTED: deliberate refusal");
  EXPECT_EQ(load("throw").ToString(), "INTERNAL: a model's backend threw while loading it");
  EXPECT_EQ(kept->restarts(), 0);
  EXPECT_EQ(load("crash").ToString(),
            "UNAVAILABLE: model 'm' version 1: the worker of GPU 0 was killed by SIGSEGV while it "
            "loaded the model");
  AwaitAvailable(*kept, true);
  EXPECT_EQ(load("hang").ToString(),
            "UNAVAILABLE: model 'm' version 1: the worker of GPU 0 was killed, for it took longer "
            "than 0.3 s to load model 'm' version 1");
  AwaitAvailable(*kept, true);
  EXPECT_EQ(*RunRow(*kept, {3}), std::vector<float>{3});
  EXPECT_TRUE(load("well").ok());
}

// What is loaded already serves nothing yet, so that nobody else would say that the device is lost.
TEST_F(DeviceFaultTest, FirstLoadThatLosesTheDevice_FailsAlone) {
  const ScratchDirectory scratch;
  const auto model = MustLoad(workers_, FixtureLoad("n"));
  const auto load = FixtureLoad("m", {{"load_file", scratch.Write("how", "trap")}});
  EXPECT_EQ(workers_.Load("device_fixture", {}, load).status().ToString(),
            "UNAVAILABLE: GPU 0 is lost: cudaErrorIllegalAddress");
  const auto instance = MustMake(*model);
  EXPECT_EQ(*RunRow(*instance, {4}), std::vector<float>{4});
}

TEST_F(DeviceFaultTest, InstanceWhoseMakingThrows_FailsAlone) {
  const auto model = MustLoad(workers_, FixtureLoad("m", {{"instances", "throw"}}));
  EXPECT_EQ(model->CreateInstance({"i"}).status().ToString(),
            "INTERNAL: model 'm' version 1 threw while making an instance");
  const auto other = MustLoad(workers_, FixtureLoad("n"));
  EXPECT_EQ(*RunRow(*MustMake(*other), {4}), std::vector<float>{4});
}

TEST_F(DeviceFaultTest, UnknownBackendAndDevice_AreReasons) {
  EXPECT_EQ(workers_.Load("nothing", {}, FixtureLoad("m")).status().code(), StatusCode::kNotFound);
  const auto status = workers_.Load("device_fixture", {}, FixtureLoad("m", {}, {"x"})).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("model 'm' version 1: 'x' is no device"));
  const auto twice = workers_.Load("device_fixture", {}, FixtureLoad("m", {}, {"0", "0"})).status();
  EXPECT_THAT(std::string(twice.message()), HasSubstr("device '0' is named twice"));
}

}  // namespace
}  // namespace penstock
