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

// As where a driver closes nothing while it is about something else.
class DeviceForgetsLate : public DevicePartsTest {
 protected:
  void SetUp() override {
    DeviceWorkerOptions options = WorkerOfTests();
    options.forget_limit_ns = kForgetLimit.count();
    Load(0, std::move(options));
  }
  // `task` is under way in the process once `waiting` is there, until `end`.
  void ExpectNoHurry(const std::function<void()>& task, const std::string& waiting,
                     const std::function<void()>& end) {
    const pid_t pid = PlanPid(*instance_);
    ClientMemory client(kMemoryBytes);
    ASSERT_TRUE(instance_->Reaches(*client.memory));
    std::thread busy(task);
    AwaitThat([&] { return std::filesystem::exists(waiting); });
    kill(pid, SIGSTOP);
    AwaitThat([pid] { return IsStopped(pid); });
    auto forgets = std::async(std::launch::async, [&] { client.memory.reset(); });
    EXPECT_EQ(forgets.wait_for(20 * kForgetLimit), std::future_status::timeout);
    kill(pid, SIGCONT);
    forgets.get();
    end();
    busy.join();
    EXPECT_FALSE(client.IsOpenIn(pid));
    EXPECT_EQ(PlanPid(*instance_), pid);
  }

  static constexpr std::chrono::nanoseconds kForgetLimit = std::chrono::milliseconds(50);
};

TEST_F(DeviceForgetsLate, WhileItLoads) {
  scratch_.Write("how", "wait");
  ExpectNoHurry([this] { MustLoadIn({worker_}, PlanLoad(scratch_, "late")); },
                scratch_.File("how.waiting"), [this] { scratch_.Write("how", "well"); });
}

TEST_F(DeviceForgetsLate, WhileItRunsABatch) {
  const auto other = MustMake(*model_);
  const auto run = [&other] {
    RowBatch batch(5, 3, kPlanWidth);
    batch.x[0] = -7;
    std::vector<BatchOutput> outputs;
    EXPECT_TRUE(batch.Run(*other, &outputs).ok());
  };
  ExpectNoHurry(run, scratch_.File("go.waiting"), [this] { scratch_.Write("go", ""); });
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
