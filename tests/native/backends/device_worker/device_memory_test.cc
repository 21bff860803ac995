// A server without memory where it speaks with a device's worker: of clients' memory that goes, and of
// what models use. Allocations are made to fail by this program's own operator new.

#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s

#include <utility>

#include "device_parts.h"
#include "testing/scarce_memory.h"

namespace penstock {
namespace {

using DeviceMemoryTest = DevicePartsTest;

TEST_F(DeviceMemoryTest, ProcessThatDoesNotForget_IsKilledThoughThereIsNoMemoryToSayWhy) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.forget_limit_ns = 100'000'000;
  Load(0, std::move(options));
  const pid_t pid = PlanPid(*instance_);
  ClientMemory client(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  kill(pid, SIGSTOP);
  AwaitThat([pid] { return IsStopped(pid); });
  {
    const ScarceMemory none(0);
    client.memory.reset();
  }
  EXPECT_FALSE(client.IsOpenIn(pid));
  AwaitThat([&] { return worker_->restarts() == 1 && instance_->is_available(); });
}

// The answer of 10 devices has more than 64 KiB, a batch has less.
TEST(DeviceUseMemoryTest, AnswerThatThereIsNoMemoryFor_FailsNoBatchAndIsAskedForAgain) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.ask_every_ns = 0;
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  const auto model = MustLoadIn({worker}, FixtureLoad("m", {{"uses", "10"}}));
  const auto instance = MustMake(*model);
  {
    const ScarceMemory scarce(0, 64 << 10);
    AwaitThat([&] {
      EXPECT_EQ(*RunRow(*instance, {3}), std::vector<float>{3});
      return std::stoi(AboutWorker(*instance, "asked")) > 3;
    });
  }
  AwaitThat([&] { return model->device_use().size() == 10; });
  EXPECT_EQ(instance->restarts(), 0);
}

}  // namespace
}  // namespace penstock
