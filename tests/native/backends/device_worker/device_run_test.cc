// Batches in a device's worker.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s
#include <sys/resource.h>

#include <numeric>
#include <thread>

#include "device_harness.h"

namespace penstock {
namespace {

using testing::HasSubstr;

class DeviceRunTest : public testing::Test {
 protected:
  DeviceWorkers workers_{DeviceDirectories()};
};

TEST_F(DeviceRunTest, Batch_IsAnsweredByTheWorker) {
  const auto model = MustLoad(workers_, FixtureLoad("m"));
  EXPECT_EQ(model->engine(), "Device fixture 1");
  EXPECT_EQ(model->signature().inputs.at(0).name, "INPUT0");
  const auto instance = MustMake(*model);
  EXPECT_TRUE(instance->is_available());
  EXPECT_FALSE(instance->runs_on_any_thread());
  for (float i = 1; i < 50; ++i) {
    EXPECT_EQ(*RunRow(*instance, {i, 2 * i}), (std::vector<float>{i, 2 * i}));
  }
  EXPECT_NE(WorkerPid(*instance), getpid());
}

TEST_F(DeviceRunTest, LargeBatches_GrowTheSlabs) {
  const auto model = MustLoad(workers_, FixtureLoad("m"));
  const auto instance = MustMake(*model);
  for (const size_t count : {size_t{1} << 14, size_t{1} << 18, size_t{1} << 20, size_t{3}}) {
    std::vector<float> values(count);
    std::iota(values.begin(), values.end(), 1.0F);
    EXPECT_EQ(*RunRow(*instance, values), values);
  }
}

TEST_F(DeviceRunTest, Worker_SeesOneDeviceAndItsMemoryIsPinned) {
  LoadOptions options =
      FixtureLoad("m", {{"execution_limit_s", "5"}, {"own", "yes"}}, {"GPU-5a1c"});
  const auto model = MustLoad(workers_, options);
  const auto instance = MustMake(*model);
  EXPECT_EQ(AboutWorker(*instance, "visible"), "GPU-5a1c");
  EXPECT_EQ(AboutWorker(*instance, "device"), "0");
  EXPECT_EQ(AboutWorker(*instance, "own"), "yes");
  EXPECT_THAT(AboutWorker(*instance, "execution_limit_s"), HasSubstr("not said"));
  EXPECT_EQ(AboutWorker(*instance, "pin_calls"), "2");  // for inputs, and for outputs
}

TEST_F(DeviceRunTest, UuidThatTheServerSees_IsTheSameDeviceAsItsNumber) {
  setenv("CUDA_VISIBLE_DEVICES", "GPU-5a1c,GPU-77", 1);  // NOLINT(concurrency-mt-unsafe)
  const auto by_uuid = MustLoad(workers_, FixtureLoad("m", {{"uses", "1"}}, {"GPU-77"}));
  const auto by_number = MustLoad(workers_, FixtureLoad("n", {}, {"1"}));
  unsetenv("CUDA_VISIBLE_DEVICES");  // NOLINT(concurrency-mt-unsafe)
  EXPECT_EQ(WorkerPid(*MustMake(*by_uuid)), WorkerPid(*MustMake(*by_number)));
  std::vector<DeviceUse> uses;
  AwaitThat([&] { return !(uses = by_uuid->device_use()).empty(); });
  EXPECT_EQ(uses[0].id, 1);
}

TEST_F(DeviceRunTest, BackendOptions_ReachTheWorker) {
  const auto model = workers_.Load("device_fixture", {{"name", "Named 2"}}, FixtureLoad("m"));
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ((*model)->engine(), "Named 2");
}

TEST_F(DeviceRunTest, FailuresOfABatch_AreThatBatchsAlone) {
  const auto model = MustLoad(workers_, FixtureLoad("m"));
  const auto instance = MustMake(*model);
  EXPECT_EQ(RunRow(*instance, {-5}).status().code(), StatusCode::kInternal);
  EXPECT_EQ(RunRow(*instance, {-5}).status().message(),
            "model 'm' version 1 threw while running a batch");  // what it said is in the log
  EXPECT_EQ(RunRow(*instance, {-6}).status().ToString(), "INVALID_ARGUMENT: deliberate failure");
  EXPECT_EQ(*RunRow(*instance, {4}), std::vector<float>{4});
  EXPECT_EQ(instance->restarts(), 0);
}

TEST_F(DeviceRunTest, OutputsThatAreTooLarge_FailTheirBatchAlone) {
  const auto model = MustLoad(workers_, FixtureLoad("m"));
  const auto instance = MustMake(*model);
  const pid_t pid = WorkerPid(*instance);
  const Status status = RunRow(*instance, {-10, 5.0F * (1 << 30)}).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("expected at most 4294967296"));
  EXPECT_EQ(RunRow(*instance, {-10, 1 << 20})->size(), 1 << 18);
  EXPECT_EQ(WorkerPid(*instance), pid);
}

// Until it goes this process can open no descriptor.
class NoDescriptors {
 public:
  NoDescriptors() {
    getrlimit(RLIMIT_NOFILE, &before_);
    do {
      taken_.emplace_back(open("/dev/null", O_RDONLY | O_CLOEXEC));
    } while (taken_.back().get() < kMost);
    rlimit none = before_;
    none.rlim_cur = kMost;
    setrlimit(RLIMIT_NOFILE, &none);
  }
  ~NoDescriptors() { setrlimit(RLIMIT_NOFILE, &before_); }
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;

 private:
  static constexpr int kMost = 64;
  rlimit before_{};
  std::vector<OwnedFd> taken_;
};

TEST_F(DeviceRunTest, ShortageOfTheServer_FailsItsBatchAlone) {
  const auto model = MustLoad(workers_, FixtureLoad("m"));
  const auto instance = MustMake(*model);
  const pid_t pid = WorkerPid(*instance);
  {
    const NoDescriptors none;
    const Status status = RunRow(*instance, {-10, 1 << 20}).status();
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()), HasSubstr("no shared memory of 10"));
    EXPECT_EQ(*RunRow(*instance, {3}), std::vector<float>{3});
  }
  EXPECT_EQ(RunRow(*instance, {-10, 1 << 20})->size(), 1 << 18);
  EXPECT_EQ(WorkerPid(*instance), pid);
}

TEST_F(DeviceRunTest, ShortageOfTheServer_FailsALoadAlone) {
  const auto model = MustLoad(workers_, FixtureLoad("m"));
  const auto instance = MustMake(*model);
  const pid_t pid = WorkerPid(*instance);
  {
    const NoDescriptors none;
    EXPECT_FALSE(workers_.Load("device_fixture", {}, FixtureLoad("n")).ok());
    EXPECT_FALSE(model->CreateInstance({"j"}).ok());
    EXPECT_EQ(*RunRow(*instance, {3}), std::vector<float>{3});
  }
  const auto other = MustLoad(workers_, FixtureLoad("n"));
  EXPECT_EQ(WorkerPid(*MustMake(*other)), pid);
}

TEST_F(DeviceRunTest, ShortageOfTheServer_FailsAScrapeAlone) {
  const auto model = MustLoad(workers_, FixtureLoad("m", {{"uses", "10"}}));  // more than a slab
  const auto instance = MustMake(*model);
  const pid_t pid = WorkerPid(*instance);
  {
    const NoDescriptors none;
    AwaitThat([&] {
      model->device_use();
      return std::stoi(AboutWorker(*instance, "asked")) > 2;  // it has been told twice
    });
  }
  AwaitThat([&] { return model->device_use().size() == 10; });
  EXPECT_EQ(WorkerPid(*instance), pid);
}

// How often a worker has been asked what its model uses, which nobody looks at: once, as an instance
// was made, and as batches are run.
TEST(DeviceUseTest, Worker_IsAskedBeforeAnybodyLooks) {
  for (const auto& [ask_every_ns, times] : {std::pair{kNever, 1}, std::pair{int64_t{0}, 3}}) {
    DeviceWorkerOptions options = WorkerOfTests();
    options.ask_every_ns = ask_every_ns;
    const auto worker = std::make_shared<DeviceWorker>(std::move(options));
    const auto model = MustLoadIn({worker}, FixtureLoad("m", {{"uses", "1"}}));
    const auto instance = MustMake(*model);
    AwaitThat([&, most = times] { return std::stoi(AboutWorker(*instance, "asked")) >= most; });
  }
}

// Its answer is more than a slab, so that the first who looks makes room for it.
TEST(DeviceUseTest, WorkerThatIsStartedAgain_IsAskedAndTheOldOneIsNotShown) {
  DeviceWorkerOptions options = WorkerOfTests();
  options.ask_every_ns = kNever;
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  const auto model = MustLoadIn({worker}, FixtureLoad("m", {{"uses", "10"}}));
  const auto instance = MustMake(*model);
  const auto pid = static_cast<uint64_t>(WorkerPid(*instance));
  const auto held = [&] {
    const auto uses = model->device_use();
    return uses.empty() ? 0 : uses[0].memory_bytes;
  };
  AwaitThat([&] { return held() == pid; });
  kill(static_cast<pid_t>(pid), SIGKILL);
  AwaitThat([&] { return worker->restarts() == 1 && instance->is_available(); });
  AwaitThat([&] { return AboutWorker(*instance, "asked") == "1"; });  // and nobody has looked
  EXPECT_NE(held(), pid);
  AwaitThat([&] { return held() == static_cast<uint64_t>(WorkerPid(*instance)); });
}

TEST_F(DeviceRunTest, StoppedWorker_IsShownAsItWas) {
  const auto model = MustLoad(workers_, FixtureLoad("m", {{"uses", "1"}}));
  const auto instance = MustMake(*model);
  const pid_t pid = WorkerPid(*instance);  // by a batch
  const auto runs = [&] {
    const auto uses = model->device_use();
    return uses.empty() ? 0 : uses[0].uncaptured_runs;
  };
  AwaitThat([&] { return runs() == 1; });
  kill(pid, SIGSTOP);
  AwaitThat([pid] { return IsStopped(pid); });
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(runs(), 1);
  kill(pid, SIGCONT);
  EXPECT_EQ(*RunRow(*instance, {3}), std::vector<float>{3});
  AwaitThat([&] { return runs() == 2; });
}

TEST_F(DeviceRunTest, ModelsOfADevice_ShareAProcessAndRunAtOnce) {
  const ScratchDirectory scratch;
  const auto first = MustLoad(workers_, FixtureLoad("a", {{"file", scratch.File("go")}}));
  const auto second = MustLoad(workers_, FixtureLoad("b"));
  const auto blocked = MustMake(*first);
  const auto other = MustMake(*first);
  const auto third = MustMake(*second);
  EXPECT_EQ(WorkerPid(*other), WorkerPid(*third));
  std::thread waits([&] { EXPECT_EQ(*RunRow(*blocked, {-7}), std::vector<float>{-7}); });
  EXPECT_EQ(*RunRow(*other, {1}), std::vector<float>{1});
  EXPECT_EQ(*RunRow(*third, {2}), std::vector<float>{2});
  scratch.Write("go", "");
  waits.join();
}

TEST_F(DeviceRunTest, InstancesTakeTheDevicesInTurn) {
  const auto model = MustLoad(workers_, FixtureLoad("m", {}, {"0", "1"}));
  const auto first = MustMake(*model);
  const auto second = MustMake(*model);
  const auto third = MustMake(*model);
  EXPECT_EQ(AboutWorker(*first, "visible"), "0");
  EXPECT_EQ(AboutWorker(*second, "visible"), "1");
  EXPECT_EQ(WorkerPid(*first), WorkerPid(*third));
}

TEST_F(DeviceRunTest, LastModelThatGoes_EndsTheProcess) {
  auto model = MustLoad(workers_, FixtureLoad("m"));
  auto instance = MustMake(*model);
  const pid_t pid = WorkerPid(*instance);
  EXPECT_EQ(kill(pid, 0), 0);
  instance.reset();
  model.reset();
  AwaitThat([pid] { return kill(pid, 0) != 0; });
  const auto again = MustLoad(workers_, FixtureLoad("m"));
  const auto served = MustMake(*again);
  EXPECT_EQ(*RunRow(*served, {1}), std::vector<float>{1});
  EXPECT_EQ(served->restarts(), 0);
}

TEST_F(DeviceRunTest, PlanOnAFakeGpu_IsServed) {
  const ScratchDirectory scratch;
  LoadOptions options = FixtureLoad("p", {{"kind", "plan"}, {"lanes", "1"}}, {"3"});
  options.path = scratch.Write("model.plan", "fake-plan");
  const auto model = MustLoad(workers_, options);
  EXPECT_EQ(model->signature().inputs.size(), 2);
  EXPECT_TRUE(MustMake(*model)->is_available());
  EXPECT_EQ(model->runs_on(), "GPU 3 (Fake GPU)");
  std::vector<DeviceUse> uses;
  AwaitThat([&] { return !(uses = model->device_use()).empty(); });
  ASSERT_EQ(uses.size(), 1);
  EXPECT_EQ(uses[0].id, 3);
  EXPECT_EQ(uses[0].name, "Fake GPU");
  EXPECT_EQ(uses[0].graphs.size(), 4);
}

TEST(DeviceProgramTest, DirectoriesWithoutIt_AreAReason) {
  DeviceWorkers workers({testing::TempDir()});
  const auto model = workers.Load("device_fixture", {}, FixtureLoad("m"));
  EXPECT_EQ(model.status().code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("penstock_device_worker"));
}

}  // namespace
}  // namespace penstock
