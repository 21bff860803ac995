// Clients' memory that goes, and is closed by the processes that have it open.

#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s

#include <chrono>
#include <filesystem>
#include <functional>
#include <future>
#include <thread>

#include "device_parts.h"

namespace penstock {
namespace {

using DeviceForgetTest = DevicePartsTest;

TEST_F(DeviceForgetTest, NonsenseWhereAMemoryIsForgotten_EndsTheProcess) {
  Load();
  const pid_t pid = PlanPid(*instance_);
  ClientMemory client(kMemoryBytes);
  scratch_.Write("reach", "mumble");
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  EXPECT_TRUE(client.IsOpenIn(pid));
  client.memory.reset();
  EXPECT_FALSE(client.IsOpenIn(pid));
  AwaitThat([&] { return worker_->restarts() == 1 && instance_->is_available(); });
}

TEST_F(DeviceForgetTest, DeviceThatIsLostAsAMemoryIsClosed_EndsTheProcess) {
  Load();
  ClientMemory client(kMemoryBytes);
  scratch_.Write("reach", "lose");
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  client.memory.reset();
  AwaitThat([&] { return worker_->restarts() == 1 && instance_->is_available(); });
  const RowBatch batch(6, 2, kPlanWidth);
  EXPECT_TRUE(batch.Run(*instance_, &outputs_).ok());
}

TEST_F(DeviceForgetTest, ProcessThatDoesNotForget_IsKilledAsOneThatHangs) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.forget_limit_ns = 200'000'000;
  Load(0, std::move(options));
  const pid_t pid = PlanPid(*instance_);
  ClientMemory client(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  kill(pid, SIGSTOP);
  AwaitThat([pid] { return IsStopped(pid); });
  client.memory.reset();
  EXPECT_FALSE(client.IsOpenIn(pid));
  AwaitThat([&] { return worker_->restarts() == 1 && instance_->is_available(); });
  const RowBatch batch(6, 2, kPlanWidth);
  EXPECT_TRUE(batch.Run(*instance_, &outputs_).ok());
}

// As where a driver closes and frees nothing while it is about something else.
class DeviceForgetsLate : public DevicePartsTest {
 protected:
  void SetUp() override {
    DeviceWorkerOptions options = WorkerOfTests();
    options.forget_limit_ns = kLimit.count();
    options.free_limit_ns = kLimit.count();
    Load(kNoHurryS, std::move(options));
  }
  // `task` is under way in the process once `waiting` is there, until `end`; `ask` meanwhile.
  void ExpectNoHurry(const std::function<void()>& task, const std::string& waiting,
                     const std::function<void()>& end, const std::function<void()>& ask) {
    const pid_t pid = PlanPid(*instance_);
    std::thread busy(task);
    AwaitThat([&] { return std::filesystem::exists(waiting); });
    kill(pid, SIGSTOP);
    AwaitThat([pid] { return IsStopped(pid); });
    auto asked = std::async(std::launch::async, ask);
    EXPECT_EQ(asked.wait_for(20 * kLimit), std::future_status::timeout);
    kill(pid, SIGCONT);
    asked.get();
    end();
    busy.join();
    EXPECT_EQ(PlanPid(*instance_), pid);
  }
  void ExpectNoHurryToForget(const std::function<void()>& task, const std::string& waiting,
                             const std::function<void()>& end) {
    const pid_t pid = PlanPid(*instance_);
    ClientMemory client(kMemoryBytes);
    ASSERT_TRUE(instance_->Reaches(*client.memory));
    ExpectNoHurry(task, waiting, end, [&] { client.memory.reset(); });
    EXPECT_FALSE(client.IsOpenIn(pid));
  }
  static Status RunUntilGo(BackendInstance& instance) {
    RowBatch batch(5, 3, kPlanWidth);
    batch.x[0] = -7;
    std::vector<BatchOutput> outputs;
    return batch.Run(instance, &outputs);
  }
  void LoadLate() { MustLoadIn({worker_}, PlanLoad(scratch_, "late"), kNoHurryS, kNoHurryS); }

  static constexpr double kNoHurryS = 600;
  static constexpr std::chrono::nanoseconds kLimit = std::chrono::milliseconds(50);
};

TEST_F(DeviceForgetsLate, WhileItLoads) {
  scratch_.Write("how", "wait");
  ExpectNoHurryToForget([this] { LoadLate(); }, scratch_.File("how.waiting"),
                        [this] { scratch_.Write("how", "well"); });
}

TEST_F(DeviceForgetsLate, WhileItRunsABatch) {
  const auto other = MustMake(*model_);
  ExpectNoHurryToForget([&] { EXPECT_TRUE(RunUntilGo(*other).ok()); }, scratch_.File("go.waiting"),
                        [this] { scratch_.Write("go", ""); });
}

// Requests for it fail meanwhile.
TEST_F(DeviceForgetsLate, WhileItMakesAnInstanceAgain) {
  const auto model = MustLoadIn(
      {worker_}, FixtureLoad("slow", {{"instances", scratch_.File("slow")}}), kNoHurryS, kNoHurryS);
  const auto slow = MustMake(*model);
  scratch_.Write("slow", "wait");
  KillAndAwaitAnother();
  AwaitThat([this] { return std::filesystem::exists(scratch_.File("slow.waiting")); });
  EXPECT_EQ(RunRow(*slow, {1}).status().code(), StatusCode::kUnavailable);
  ExpectNoHurryToForget([] {}, scratch_.File("slow.waiting"),
                        [this] { scratch_.Write("slow", "well"); });
  AwaitAvailable(*slow, true);
  EXPECT_EQ(worker_->restarts(), 1);
}

TEST_F(DeviceForgetsLate, AndFreesLate) {
  auto other = MustMake(*model_);
  scratch_.Write("how", "wait");
  ExpectNoHurry([this] { LoadLate(); }, scratch_.File("how.waiting"),
                [this] { scratch_.Write("how", "well"); }, [&] { other.reset(); });
}

// What has no limit would hold it up for ever.
TEST_F(DeviceForgetsLate, ButNotWhileItRunsABatchWithoutLimit) {
  const auto model = MustLoadIn({worker_}, PlanLoad(scratch_, "endless"));
  const auto endless = MustMake(*model);
  const pid_t pid = PlanPid(*instance_);
  ClientMemory client(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  std::thread busy([&] { EXPECT_EQ(RunUntilGo(*endless).code(), StatusCode::kUnavailable); });
  AwaitThat([this] { return std::filesystem::exists(scratch_.File("go.waiting")); });
  kill(pid, SIGSTOP);
  AwaitThat([pid] { return IsStopped(pid); });
  client.memory.reset();
  EXPECT_FALSE(client.IsOpenIn(pid));
  busy.join();
  AwaitThat([&] { return worker_->restarts() == 1 && instance_->is_available(); });
}

TEST_F(DeviceForgetTest, ProcessThatIsLeftMeanwhile_IsNotWaitedForToForget) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.launch.end_signal = 0;  // as if the driver held it: to kill it does nothing
  options.forget_limit_ns = int64_t{3600} * 1'000'000'000;
  Load(0.1, std::move(options));
  const pid_t pid = PlanPid(*instance_);
  ClientMemory client(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  kill(pid, SIGSTOP);
  AwaitThat([pid] { return IsStopped(pid); });
  std::thread forgets([&] { client.memory.reset(); });
  const RowBatch batch(6, 2, kPlanWidth);
  EXPECT_EQ(batch.Run(*instance_, &outputs_).code(), StatusCode::kUnavailable);
  forgets.join();
  EXPECT_EQ(worker_->restarts(), 0);
  kill(pid, SIGKILL);
  AwaitThat([&] { return worker_->restarts() == 1 && instance_->is_available(); });
  const pid_t last = PlanPid(*instance_);
  instance_.reset();
  model_.reset();
  kill(last, SIGKILL);
}

TEST_F(DeviceForgetTest, MemoryThatOutlivesItsWorker_GoesByItself) {
  Load();
  ClientMemory client(kMemoryBytes);
  ClientMemory other(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  ASSERT_TRUE(instance_->Reaches(*other.memory));
  const pid_t pid = PlanPid(*instance_);
  instance_.reset();
  model_.reset();  // which ends the process
  AwaitThat([pid] { return kill(pid, 0) != 0; });
  client.memory.reset();
  worker_.reset();
  other.memory.reset();
}

}  // namespace
}  // namespace penstock
