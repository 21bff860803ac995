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
  RequestRef SendTo(const std::string& version) {
    return harness_.Send(InferMessage("m", version).Row({1}));
  }
  // Of how many requests it was counted how long they have waited.
  uint64_t CountWaited() const {
    uint64_t waited = 0;
    for (const uint64_t count : harness_.engine.wait_us().counts) waited += count;
    return waited;
  }

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
  EXPECT_EQ(CountWaited(), 2U);
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

TEST_F(WaitForLoadTest, MalformedVersion_IsNoDemand) {
  SendTo("one");
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(harness_.engine.TakeDemands().empty());
  EXPECT_EQ(harness_.engine.waiting("m"), 0U);
}

TEST_F(WaitForLoadTest, VersionThatNoLoadBrings_IsRefusedWithoutOne) {
  SendTo("7");
  harness_.engine.TakeDemands();
  harness_.engine.SetLoadable("m", {1, 2});
  const Status refused = harness_.Await(1)[0].status;
  EXPECT_EQ(refused.ToString(),
            NotFound("Request for unknown model: 'm' version 7 is not found").ToString());
  EXPECT_EQ(harness_.engine.waiting("m"), 0U);
}

TEST_F(WaitForLoadTest, VersionsThatALoadBrings_WaitForItBesideTheOthers) {
  SendTo("7");
  SendTo("1");
  harness_.engine.TakeDemands();
  harness_.engine.SetLoadable("m", {1});
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kNotFound);
  SendTo("7");  // while the load is under way
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kNotFound);
  Send();
  EXPECT_EQ(harness_.engine.waiting("m"), 2U);
  EXPECT_TRUE(harness_.engine.TakeDemands().empty());
  Load();
  for (const Outcome& outcome : harness_.Await(2)) EXPECT_EQ(outcome.status.ToString(), "OK");
}

TEST_F(WaitForLoadTest, VersionThatWasLoadedOnce_AndNoLoadBrings_IsUnavailable) {
  harness_.engine.SetServing("m", {}, {3}, true);
  SendTo("3");
  harness_.engine.SetLoadable("m", {4});
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kUnavailable);
}

TEST_F(WaitForLoadTest, WhatALoadWouldBring_IsAskedAgainOnceItHasEnded) {
  const auto is_demand = [this] {
    SendTo("7");
    return !harness_.engine.TakeDemands().empty();
  };
  harness_.engine.SetLoadable("m", {1});
  EXPECT_FALSE(is_demand());
  harness_.engine.GiveUpLoad("m");
  EXPECT_TRUE(is_demand());
  harness_.engine.SetLoadable("m", {1});
  harness_.engine.EndWait("m", Internal("corrupt"));
  EXPECT_TRUE(is_demand());
  harness_.engine.SetLoadable("m", {1});
  Load();
  harness_.engine.SetServing("m", {}, {1}, true);
  EXPECT_TRUE(is_demand());
}

TEST_F(WaitForLoadTest, RequestThatComesAsALoadIsGivenUp_IsANewDemand) {
  const RequestRef left = Send();
  harness_.engine.TakeDemands();
  harness_.engine.Cancel(left);
  harness_.Await(1);
  EXPECT_EQ(harness_.engine.waiting("m"), 0U);  // so the load is given up
  Send();                                       // and meanwhile somebody comes
  EXPECT_TRUE(harness_.engine.TakeDemands().empty());
  harness_.engine.GiveUpLoad("m");
  EXPECT_TRUE(harness_.AwaitSome().empty());
  EXPECT_EQ(harness_.engine.TakeDemands(), std::vector<std::string>{"m"});
  EXPECT_EQ(CountWaited(), 0U);  // it waits still
  Load();
  EXPECT_EQ(harness_.Await(1)[0].status.ToString(), "OK");
  EXPECT_EQ(CountWaited(), 1U);
}

TEST_F(WaitForLoadTest, FirstRequestThatIsRefused_IsNoDemand) {
  harness_.Send(InferMessage().Row({1}), Clock::System().NowNs() - 1);
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(harness_.engine.TakeDemands().empty());
}

TEST_F(WaitForLoadTest, RefusedRequest_IsLinkedToNoQueue) {
  Send();
  Send();
  const RequestRef refused = Send();
  EXPECT_EQ(AsInfer(refused).waits_in, nullptr);
  harness_.Await(1);
}

TEST_F(WaitForLoadTest, CallerThatLeavesAfterTheLoad_IsTakenOutOfTheQueueItIsInNow) {
  Gate gate;
  const auto blocked = [&gate](std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                               std::vector<BatchOutput>* outputs) {
    gate.Pass();
    return Echo(inputs, wanted, outputs);
  };
  const auto version = harness_.Create(IdentitySpec(), blocked);
  const RequestRef ref = Send();
  harness_.engine.Start(version);
  harness_.engine.SetServing("m", {version}, {}, true);
  Send();
  gate.AwaitArrived(1);  // the one that came later runs already
  EXPECT_TRUE(harness_.AwaitSome().empty());
  EXPECT_EQ(AsInfer(ref).waits_in, nullptr);
  harness_.engine.Cancel(ref);
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kCancelled);
  EXPECT_EQ(version->counters().cancelled_queued, 1U);
  gate.Open();
  EXPECT_EQ(harness_.Await(1)[0].status.ToString(), "OK");
}

TEST_F(WaitForLoadTest, Shutdown_EndsTheWait) {
  Send();
  EXPECT_TRUE(harness_.engine.Shutdown(kLongNs));
  const Outcome outcome = harness_.Await(1)[0];
  EXPECT_EQ(outcome.status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(outcome.status.message(), "the server is shutting down");
}

// Submitters with queues of their own, while the model comes and goes. Some requests name the
// version, and the callers of some leave.
class Submitter {
 public:
  Submitter(Engine& engine, std::string version)
      : engine_(engine),
        message_(InferMessage("m", std::move(version)).Row({1}).bytes()),
        completions_(engine.MakeCompletionQueue()) {}

  void Run() {
    int sent = 0;
    for (int inflight = 0; sent < kCount || inflight > 0;) {
      for (; inflight < 16 && sent < kCount; ++inflight, ++sent) Send(sent % 5 == 0);
      pollfd descriptor{completions_->fd(), POLLIN, 0};
      poll(&descriptor, 1, -1);
      std::vector<RequestRef> taken;
      completions_->Take(&taken);
      for (const RequestRef& ref : taken) inflight -= IsOver(ref) ? 1 : 0;
    }
  }

 private:
  static constexpr int kCount = 3000;

  void Send(bool leaves) {
    const RequestRef ref = InferRequestPool::Shared().Get();
    AsInfer(ref).message = SpanOf(message_);
    AsInfer(ref).completions = completions_.get();
    engine_.Infer(ref);
    if (leaves) engine_.Cancel(ref);
  }
  bool IsOver(const RequestRef& ref) {
    if (AsInfer(ref).retries) {
      engine_.Retry(ref);
      if (AsInfer(ref).version != nullptr) AsInfer(ref).version->Flush();
      return false;
    }
    const StatusCode code = AsInfer(ref).status.code();
    if (!ref->is_cancelled() || code != StatusCode::kCancelled) {
      EXPECT_EQ(AsInfer(ref).status.ToString(), "OK");
    }
    engine_.Release(AsInfer(ref));
    return true;
  }

  Engine& engine_;
  const std::string message_;
  const std::shared_ptr<CompletionQueue> completions_;  // instances tell it after the last one
};

TEST(WaitForLoadStressTest, ModelThatComesAndGoesUnderLoad_LosesNothing) {
  Engine engine({.backend_directories = {}, .limits = {}});
  engine.SetServing("m", {}, {1}, true);
  std::atomic<int> left{2};
  const auto run = [&](const char* version) {
    Submitter(engine, version).Run();
    left -= 1;
  };
  std::thread first(run, "");
  std::thread second(run, "1");
  for (int loads = 0; left > 0;) {
    pollfd demand{engine.demand_fd(), POLLIN, 0};
    if (poll(&demand, 1, 1) == 0 || engine.TakeDemands().empty()) continue;
    engine.SetLoadable("m", {1});
    if (++loads % 3 == 0) {
      engine.GiveUpLoad("m");
      continue;
    }
    auto version = *engine.CreateVersion(MakeModel(), IdentitySpec());
    engine.Start(version);
    engine.SetServing("m", {version}, {}, true);
    while (left > 0 && version->counters().accepted < 100) std::this_thread::yield();
    engine.SetServing("m", {}, {1}, true);
    EXPECT_TRUE(engine.Drain(version, kLongNs));
  }
  first.join();
  second.join();
  EXPECT_EQ(engine.admission().inflight(), 0U);
}

}  // namespace
}  // namespace penstock
