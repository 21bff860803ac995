// Requests for a model that is loaded when it is asked for: they wait, once each, and no longer than
// they may.

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "engine_harness.h"

namespace penstock {
namespace {

class WaitForLoadTest : public testing::Test {
 protected:
  WaitForLoadTest() { harness_.engine.SetServing("m", {}, {}, /*loads_on_demand=*/true); }

  static Engine::Options Options() {
    Engine::Options options;
    options.max_waiting_requests = 2;
    return options;
  }
  std::shared_ptr<ModelVersion> Started() {
    auto version = harness_.Create(IdentitySpec());
    harness_.engine.Start(version);
    return version;
  }
  void Load() { harness_.engine.SetServing("m", {Started()}, {}, true); }
  RequestRef Send() { return harness_.Send(InferMessage().Row({1})); }

  EngineHarness harness_{Options()};
};

TEST_F(WaitForLoadTest, RequestsWait_AndAreAnsweredOnceItIsLoaded) {
  Send();
  Send();
  EXPECT_EQ(harness_.engine.TakeDemands(), std::vector<std::string>{"m"});  // one of both
  EXPECT_EQ(harness_.engine.waiting("m"), 2U);
  Load();
  for (const Outcome& outcome : harness_.Await(2)) EXPECT_EQ(outcome.status.ToString(), "OK");
  EXPECT_EQ(harness_.engine.waiting("m"), 0U);
  uint64_t waited = 0;
  for (const uint64_t count : harness_.engine.wait_us().counts) waited += count;
  EXPECT_EQ(waited, 2U);
  EXPECT_EQ(harness_.engine.admission().inflight(), 0U);
}

TEST_F(WaitForLoadTest, LoadedModel_IsNoDemand) {
  Load();
  EXPECT_TRUE(harness_.Run(InferMessage().Row({1})).status.ok());
  EXPECT_TRUE(harness_.engine.TakeDemands().empty());
}

TEST_F(WaitForLoadTest, FullWait_RefusesWithTheNumber) {
  Send();
  Send();
  Send();
  const Outcome refused = harness_.Await(1)[0];
  EXPECT_EQ(refused.status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(refused.status.message(),
            "model 'm' is not loaded yet, and 2 requests wait for it already");
}

TEST_F(WaitForLoadTest, FailedLoad_EndsAllThatWait_AndTheNextOneIsADemandAgain) {
  Send();
  Send();
  harness_.engine.TakeDemands();
  harness_.engine.EndWait("m", InvalidArgument("corrupt"));
  for (const Outcome& outcome : harness_.Await(2)) {
    EXPECT_EQ(outcome.status.ToString(), InvalidArgument("corrupt").ToString());
  }
  EXPECT_TRUE(harness_.engine.TakeDemands().empty());
  Send();
  EXPECT_EQ(harness_.engine.TakeDemands().size(), 1U);
}

TEST_F(WaitForLoadTest, LoadThatBegins_LeavesThemWaiting) {
  Send();
  harness_.engine.SetServing("m", {}, {1}, true);
  EXPECT_EQ(harness_.engine.waiting("m"), 1U);
}

TEST_F(WaitForLoadTest, ModelThatIsTakenAway_IsSaidToBe) {
  Send();
  harness_.engine.SetServing("m", {}, {}, false);
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kNotFound);
  harness_.engine.SetServing("m", {}, {}, true);
  Send();
  harness_.engine.Forget("m");
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kNotFound);
}

TEST_F(WaitForLoadTest, Deadline_EndsTheWait) {
  const int64_t now_ns = Clock::System().NowNs();
  harness_.Send(InferMessage().Row({1}), now_ns + 20'000'000);
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kDeadlineExceeded);
}

TEST_F(WaitForLoadTest, CallerThatLeaves_EndsItsWait) {
  const RequestRef ref = Send();
  harness_.engine.Cancel(ref);
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kCancelled);
  EXPECT_EQ(harness_.engine.waiting("m"), 0U);
}

TEST_F(WaitForLoadTest, CallerThatLeavesAsItIsLoaded_EndsCancelled) {
  const RequestRef ref = Send();
  Load();
  harness_.engine.Cancel(ref);  // it is on its way back to its submitter
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kCancelled);
}

TEST_F(WaitForLoadTest, VersionThatIsNotThere_IsNotFoundOnceItIsLoaded) {
  harness_.Send(InferMessage("m", "7").Row({1}));
  Load();
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kNotFound);
  EXPECT_EQ(harness_.Run(InferMessage("m", "7").Row({1})).status.code(), StatusCode::kNotFound);
}

TEST_F(WaitForLoadTest, Shutdown_EndsTheWait) {
  Send();
  EXPECT_TRUE(harness_.engine.Shutdown(kLongNs));
  const Outcome outcome = harness_.Await(1)[0];
  EXPECT_EQ(outcome.status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(outcome.status.message(), "the server is shutting down");
}

// Submitters with queues of their own, while the model comes and goes.
TEST(WaitForLoadStressTest, ModelThatComesAndGoesUnderLoad_LosesNothing) {
  constexpr int kPerClient = 3000;
  Engine engine({.backend_directories = {}, .limits = {}});
  engine.SetServing("m", {}, {}, true);
  std::atomic<int> left{2};
  const auto client = [&] {
    const auto completions = engine.MakeCompletionQueue();  // instances tell it after the last one
    const std::string message = InferMessage().Row({1}).bytes();
    int good = 0;
    for (int sent = 0, inflight = 0; sent < kPerClient || inflight > 0;) {
      for (; inflight < 16 && sent < kPerClient; ++inflight, ++sent) {
        const RequestRef ref = InferRequestPool::Shared().Get();
        AsInfer(ref).message = SpanOf(message);
        AsInfer(ref).completions = completions.get();
        engine.Infer(ref);
      }
      pollfd descriptor{completions->fd(), POLLIN, 0};
      poll(&descriptor, 1, -1);
      std::vector<RequestRef> taken;
      completions->Take(&taken);
      for (const RequestRef& ref : taken) {
        if (AsInfer(ref).retries) {
          engine.Retry(ref);
          if (AsInfer(ref).version != nullptr) AsInfer(ref).version->Flush();
          continue;
        }
        EXPECT_EQ(AsInfer(ref).status.ToString(), "OK");
        good += AsInfer(ref).status.ok() ? 1 : 0;
        engine.Release(AsInfer(ref));
        --inflight;
      }
    }
    EXPECT_EQ(good, kPerClient);
    left -= 1;
  };
  std::thread first(client);
  std::thread second(client);
  while (left > 0) {
    pollfd demand{engine.demand_fd(), POLLIN, 0};
    if (poll(&demand, 1, 1) == 0 || engine.TakeDemands().empty()) continue;
    auto version = *engine.CreateVersion(MakeModel(), IdentitySpec());
    engine.Start(version);
    engine.SetServing("m", {version}, {}, true);
    while (left > 0 && version->counters().accepted < 100) std::this_thread::yield();
    engine.SetServing("m", {}, {}, true);
    EXPECT_TRUE(engine.Drain(version, kLongNs));
  }
  first.join();
  second.join();
  EXPECT_EQ(engine.admission().inflight(), 0U);
}

}  // namespace
}  // namespace penstock
