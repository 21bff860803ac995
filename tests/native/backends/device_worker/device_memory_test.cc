// A server without memory where it speaks with a device's worker: of clients' memory that goes, and of
// what models use. Allocations are made to fail by this program's own operator new.

#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s

#include <utility>

#include "device_parts.h"
#include "testing/quiet_log.h"
#include "testing/scarce_memory.h"

namespace penstock {
namespace {

TEST(DeviceMemoryTest, ProcessThatDoesNotForget_IsKilledThoughThereIsNoMemoryToSayWhy) {
  const QuietLog quiet;
  const ScratchDirectory scratch;
  DeviceWorkerOptions options = WorkerOfTests();
  options.forget_limit_ns = 100'000'000;
  const auto worker = WorkerOfGpu(0, std::move(options));
  const auto model = MustLoadIn({worker}, PlanLoad(scratch));
  const auto instance = MustMake(*model);
  const pid_t pid = PlanPid(*instance);
  ClientMemory client(4096);
  ASSERT_TRUE(instance->Reaches(*client.memory));
  kill(pid, SIGSTOP);
  AwaitThat([pid] { return IsStopped(pid); });
  {
    const ScarceMemory none(0);
    client.memory.reset();
  }
  EXPECT_FALSE(client.IsOpenIn(pid));
  AwaitThat([&] { return worker->restarts() == 1 && instance->is_available(); });
}

// The answer of 10 devices has more than 64 KiB, a batch has less.
TEST(DeviceMemoryTest, AnswerThatThereIsNoMemoryFor_FailsNoBatchAndIsAskedForAgain) {
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
