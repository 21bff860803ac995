// A device's process without models: how long it is there, and what a load finds.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s

#include <thread>

#include "device_harness.h"

namespace penstock {
namespace {

constexpr int64_t kLong = 3'600 * kNsPerS;

std::shared_ptr<DeviceWorker> WorkerThatLingers(int64_t linger_ns) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.linger_ns = linger_ns;
  return std::make_shared<DeviceWorker>(std::move(options));
}

// Loads a model, and has it go.
pid_t PidOfOneThatGoes(const std::shared_ptr<DeviceWorker>& worker) {
  const auto model = MustLoadIn({worker}, FixtureLoad("m"));
  return WorkerPid(*MustMake(*model));
}

TEST(DeviceLingerTest, LoadSoonAfterTheLastModel_IsTakenByTheSameProcess) {
  const auto worker = WorkerThatLingers(kLong);
  const pid_t pid = PidOfOneThatGoes(worker);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(PidOfOneThatGoes(worker), pid);
  EXPECT_EQ(worker->restarts(), 0);
}

TEST(DeviceLingerTest, ProcessWithoutModels_EndsInTheEnd) {
  const auto worker = WorkerThatLingers(kNsPerS / 20);
  const pid_t pid = PidOfOneThatGoes(worker);
  AwaitThat([pid] { return kill(pid, 0) != 0; });
  EXPECT_NE(PidOfOneThatGoes(worker), pid);
  EXPECT_EQ(worker->restarts(), 0);
}

TEST(DeviceLingerTest, WorkerThatGoes_DoesNotWait) {
  auto worker = WorkerThatLingers(kLong);
  const pid_t pid = PidOfOneThatGoes(worker);
  worker.reset();
  AwaitThat([pid] { return kill(pid, 0) != 0; });  // long before it would have ended by itself
}

TEST(DeviceLingerTest, ProcessThatIsKilledWithoutModels_IsNoEndOfAny) {
  const auto worker = WorkerThatLingers(kLong);
  const pid_t pid = PidOfOneThatGoes(worker);
  kill(pid, SIGKILL);
  AwaitThat([pid] { return kill(pid, 0) != 0; });
  EXPECT_NE(PidOfOneThatGoes(worker), pid);
  EXPECT_EQ(worker->restarts(), 0);
}

struct FirstLoad {
  const char* name;
  const char* backend;
  const char* how;
  StatusCode code;
};

std::string NameOf(const testing::TestParamInfo<FirstLoad>& info) { return info.param.name; }

class FirstLoadTest : public testing::TestWithParam<FirstLoad> {
 protected:
  FirstLoadTest() {
    DeviceWorkerOptions options = WorkerOfTests();
    options.linger_ns = kLong;
    auto& arguments = options.launch.arguments;
    arguments.insert(
        arguments.begin(),
        {"/bin/sh", "-c", StrCat("echo $$ >", scratch_.File("pid"), "; exec \"$@\""), "sh"});
    worker_ = std::make_shared<DeviceWorker>(std::move(options));
  }

  // The process's number.
  pid_t Fail() {
    const FirstLoad& load = GetParam();
    const auto options = FixtureLoad("m", {{"load_file", scratch_.Write("how", load.how)}});
    const auto failed = DeviceModel::Load("model 'm' version 1", {worker_},
                                          EncodeDeviceLoad({load.backend, {}, options}), {});
    EXPECT_EQ(failed.status().code(), load.code);
    pid_t pid = 0;
    std::ifstream(scratch_.File("pid")) >> pid;
    EXPECT_GT(pid, 0);
    return pid;
  }

  const ScratchDirectory scratch_;
  std::shared_ptr<DeviceWorker> worker_;
};

class FailedByItsModel : public FirstLoadTest {};

TEST_P(FailedByItsModel, ProcessIsThereForTheNextLoad) {
  const pid_t pid = Fail();
  EXPECT_EQ(PidOfOneThatGoes(worker_), pid);
  EXPECT_EQ(PidOfOneThatGoes(worker_), pid);
}

INSTANTIATE_TEST_SUITE_P(
    Loads, FailedByItsModel,
    testing::Values(FirstLoad{"not_found", "nothing", "", StatusCode::kNotFound},
                    FirstLoad{"invalid", "device_fixture", "reject", StatusCode::kInvalidArgument}),
    NameOf);

// It may be the process's own state, and a new one gets to try.
class FailedOtherwise : public FirstLoadTest {};

TEST_P(FailedOtherwise, ProcessEndsAtOnce) {
  const pid_t pid = Fail();
  AwaitThat([pid] { return kill(pid, 0) != 0; });
  EXPECT_NE(PidOfOneThatGoes(worker_), pid);
}

INSTANTIATE_TEST_SUITE_P(
    Loads, FailedOtherwise,
    testing::Values(FirstLoad{"no_memory", "device_fixture", "refuse",
                              StatusCode::kResourceExhausted},
                    FirstLoad{"throws", "device_fixture", "throw", StatusCode::kInternal},
                    FirstLoad{"away", "device_fixture", "lost", StatusCode::kUnavailable}),
    NameOf);

Status LoadAndUnload(DeviceWorker& worker, const LoadOptions& options, int64_t limit_ns = 0) {
  const auto part = worker.Add({.label = StrCat("model '", options.model_name, "' version 1"),
                                .document = EncodeDeviceLoad({"device_fixture", {}, options}),
                                .load_limit_ns = limit_ns});
  if (part.ok()) worker.Remove(*part);
  return part.status();
}

TEST(DeviceLingerTest, ProcessThatLoadsAModelAfterOneThatFailed_StaysAgain) {
  const ScratchDirectory scratch;
  const auto worker = WorkerThatLingers(kLong);
  pid_t pid = 0;
  {
    const auto there = MustLoadIn({worker}, FixtureLoad("there"));
    pid = WorkerPid(*MustMake(*there));
    const auto refused = FixtureLoad("m", {{"load_file", scratch.Write("how", "refuse")}});
    EXPECT_EQ(LoadAndUnload(*worker, refused).code(), StatusCode::kResourceExhausted);
    EXPECT_TRUE(LoadAndUnload(*worker, FixtureLoad("n")).ok());
  }
  EXPECT_EQ(PidOfOneThatGoes(worker), pid);
}

// As if the driver held it for a while, as it does where much memory is to be freed.
TEST(DeviceLingerTest, LoadsThatMeetAnEndingProcess_WaitForItsEnd) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.linger_ns = kLong;
  options.end_limit_ns = kLong;
  options.launch.end_signal = 0;
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  const ScratchDirectory scratch;
  const pid_t pid = PidOfOneThatGoes(worker);
  const auto hangs = FixtureLoad("h", {{"load_file", scratch.Write("how", "wait")}});
  Status hung, behind, after;
  std::thread first([&] { hung = LoadAndUnload(*worker, hangs, kNsPerS / 10); });
  AwaitThat([&] { return std::filesystem::exists(scratch.File("how.waiting")); });
  std::thread second([&] { behind = LoadAndUnload(*worker, FixtureLoad("m")); });
  first.join();
  EXPECT_EQ(hung.ToString(),
            "UNAVAILABLE: model 'h' version 1: the worker of GPU 0 was killed and does not end");
  std::thread third([&] { after = LoadAndUnload(*worker, FixtureLoad("n")); });
  kill(pid, SIGKILL);
  second.join();
  third.join();
  EXPECT_TRUE(behind.ok()) << behind.ToString();
  EXPECT_TRUE(after.ok()) << after.ToString();
  const pid_t next = PidOfOneThatGoes(worker);
  EXPECT_NE(next, pid);
  kill(next, SIGKILL);
}

// Loads that come as the process is being ended, or is not yet, or was.
TEST(DeviceLingerTest, LoadsThatComeAndGo_AreAllTaken) {
  constexpr int kRounds = 30;
  for (const int64_t linger_ns : {int64_t{0}, int64_t{200'000}}) {
    const auto worker = WorkerThatLingers(linger_ns);
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; ++i) {
      threads.emplace_back([&worker] {
        for (int round = 0; round < kRounds; ++round) EXPECT_GT(PidOfOneThatGoes(worker), 0);
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(worker->restarts(), 0);
  }
}

}  // namespace
}  // namespace penstock
