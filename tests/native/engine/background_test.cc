// Background requests through the engine: who runs them and when, what is counted, how they end.

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "answer_harness.h"
#include "testing/fake_clock.h"

namespace penstock {
namespace {

constexpr uint32_t kBool = 1;  // the field of a bool_param

InferMessage Rows(int64_t rows) {
  return InferMessage().Input("IN", "FP32", {rows, 1},
                              RawOf(std::vector<float>(static_cast<size_t>(rows), 1)));
}

InferMessage InBackground(InferMessage message) {
  return message.Parameter("penstock_background", kBool, 1);
}

VersionSpec FixedSpec() {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0].dims = {1};
  return spec;
}

// Serves a model whose batches pass a gate; `rows` are those of each batch, in order.
class BackgroundTest : public ::testing::Test {
 protected:
  void Serve(VersionSpec spec = FixedSpec()) {
    version_ = harness_.Serve(std::move(spec), [this](auto inputs, auto wanted, auto* outputs) {
      gate_.Pass();
      {
        MutexLock lock(mu_);
        rows_.push_back(inputs[0].tensor.shape[0]);
      }
      return Echo(inputs, wanted, outputs);
    });
  }

  // Occupies the only instance until the gate opens.
  void Occupy() {
    harness_.Send(Rows(1));
    gate_.AwaitArrived(1);
  }

  std::vector<int64_t> rows() {
    MutexLock lock(mu_);
    return rows_;
  }

  Gate gate_;
  EngineHarness harness_;
  std::shared_ptr<ModelVersion> version_;

 private:
  Mutex mu_;
  std::vector<int64_t> rows_ GUARDED_BY(mu_);
};

TEST_F(BackgroundTest, Parameter_MakesARequestABackgroundRequest) {
  Serve();
  gate_.Open();
  EXPECT_EQ(harness_.Run(InBackground(Rows(3))).outputs[0], RawOf<float>({1, 1, 1}));
  EXPECT_EQ(version_->counters().background.accepted, 1U);
  EXPECT_TRUE(harness_.Run(Rows(1).Parameter("penstock_background", kBool, 0)).status.ok());
  EXPECT_EQ(version_->counters().accepted, 1U);
}

TEST_F(BackgroundTest, Submitter_MakesARequestABackgroundRequest) {
  Serve();
  gate_.Open();
  harness_.SendInBackground(Rows(3));
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
  EXPECT_EQ(version_->counters().background.accepted, 1U);
  EXPECT_TRUE(harness_.Run(Rows(1)).status.ok());  // of the same pool of requests
  EXPECT_EQ(version_->counters().background.accepted, 1U);
}

TEST_F(BackgroundTest, ParameterThatIsNoBool_IsRefused) {
  Serve();
  const Outcome outcome = harness_.Run(Rows(1).Parameter("penstock_background", 2, 1));
  EXPECT_EQ(outcome.status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcome.status.message(),
            "invalid value for parameter 'penstock_background': expected a bool_param");
  gate_.Open();
}

TEST_F(BackgroundTest, MoreRowsThanTheBound_AreRefused) {
  VersionSpec spec = FixedSpec();
  spec.max_background_rows = 2;
  Serve(std::move(spec));
  gate_.Open();
  const Outcome outcome = harness_.Run(InBackground(Rows(3)));
  EXPECT_EQ(outcome.status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(outcome.status.message(),
            "a background request for 'm' has at most 2 rows (--background-batch-size), got 3");
  EXPECT_TRUE(harness_.Run(InBackground(Rows(2))).status.ok());
  EXPECT_TRUE(harness_.Run(Rows(3)).status.ok());
  EXPECT_EQ(version_->statistics().background.fail, 1U);
  EXPECT_EQ(version_->statistics().fail.count, 0U);
}

TEST_F(BackgroundTest, BusyInstance_RunsOthersNextAndItsBatchesAreBounded) {
  VersionSpec spec = FixedSpec();
  spec.max_background_rows = 3;
  Serve(std::move(spec));
  Occupy();
  for (int i = 0; i < 4; ++i) harness_.SendInBackground(Rows(1));
  for (int i = 0; i < 2; ++i) harness_.Send(Rows(2));
  gate_.Open();
  for (const Outcome& outcome : harness_.Await(7)) EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(rows(), (std::vector<int64_t>{1, 4, 3, 1}));
}

TEST_F(BackgroundTest, Statistics_OfOthersLeaveItOut) {
  Serve();
  Occupy();
  harness_.Send(InBackground(Rows(2)));  // joins the next batch
  harness_.SendInBackground(Rows(5));
  harness_.Send(Rows(3));
  gate_.Open();
  for (const Outcome& outcome : harness_.Await(4)) EXPECT_TRUE(outcome.status.ok());
  const VersionStatistics s = version_->statistics();
  EXPECT_EQ(s.success.count, 2U);
  EXPECT_EQ(s.queue.count, 2U);
  EXPECT_EQ(s.compute_infer.count, 2U);
  EXPECT_EQ(s.inference_count, 4U);
  EXPECT_EQ(s.execution_count, 2U);
  EXPECT_EQ(s.batches.at(5).count, 1U);  // 3 rows and the 2 that joined
  EXPECT_EQ(s.background.success, 2U);
  EXPECT_EQ(s.background.rows, 7U);
  EXPECT_EQ(s.background.batches, 1U);
  EXPECT_EQ(s.background.fail, 0U);
  EXPECT_LE(s.background.busy_ns, s.busy_ns);
}

TEST_F(BackgroundTest, CallerLeavesWhileItIsQueued_ItEndsAtOnce) {
  Serve();
  Occupy();
  const RequestRef request = harness_.SendInBackground(Rows(1));
  harness_.engine.Cancel(request);
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kCancelled);
  EXPECT_EQ(version_->counters().background.cancelled_queued, 1U);
  EXPECT_EQ(version_->counters().cancelled_queued, 0U);
  gate_.Open();
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
  EXPECT_EQ(rows().size(), 1U);
}

TEST_F(BackgroundTest, DeadlinePassesWhileOthersRun_ItEndsAtOnce) {
  Serve();
  Occupy();
  harness_.SendInBackground(Rows(1), harness_.engine.clock().NowNs() + 1'000'000);
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kDeadlineExceeded);
  gate_.Open();
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
}

TEST_F(BackgroundTest, Drain_EndsWhatIsQueuedAtOnceAndRunsNoneOfIt) {
  Serve();
  Occupy();
  for (int i = 0; i < 20; ++i) harness_.SendInBackground(Rows(3));
  std::thread drainer([&] { EXPECT_TRUE(harness_.engine.Drain(version_, kLongNs)); });
  for (const Outcome& outcome : harness_.Await(20)) {
    EXPECT_EQ(outcome.status.code(), StatusCode::kUnavailable);
    EXPECT_EQ(outcome.status.message(), "model 'm' version 1 was unloaded");
  }
  gate_.Open();
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
  drainer.join();
  EXPECT_EQ(rows().size(), 1U);
}

TEST_F(BackgroundTest, EndlessQueueOfClients_RefusesThemAndNoJob) {
  Serve();
  Occupy();
  constexpr size_t kMost = 4096;
  for (size_t i = 0; i < kMost; ++i) harness_.Send(InBackground(Rows(1)));
  harness_.Send(InBackground(Rows(1)));
  const Outcome refused = harness_.Await(1)[0];
  EXPECT_EQ(refused.status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(refused.status.message(), "Exceeds maximum queue size");
  harness_.SendInBackground(Rows(1));
  harness_.Send(Rows(1));
  gate_.Open();
  for (const Outcome& outcome : harness_.Await(kMost + 3)) EXPECT_TRUE(outcome.status.ok());
}

TEST_F(BackgroundTest, JobThatFails_FailsNobodyElse) {
  Serve();
  Occupy();
  harness_.SendInBackground(Rows(1));
  harness_.Send(Rows(1));
  gate_.Open();
  for (const Outcome& outcome : harness_.Await(3)) EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(rows(), (std::vector<int64_t>{1, 1, 1}));
}

TEST(BackgroundShareTest, RequestsThatClientsLower_LeavePlacesInFlightToOthers) {
  Engine::Options options;
  options.limits.max_inflight_requests = 4;
  Gate gate;
  EngineHarness harness(std::move(options));
  harness.Serve(FixedSpec(), [&gate](auto inputs, auto wanted, auto* outputs) {
    gate.Pass();
    return Echo(inputs, wanted, outputs);
  });
  for (int i = 0; i < 3; ++i) harness.Send(InBackground(Rows(1)));
  const Outcome refused = harness.Await(1)[0];
  EXPECT_EQ(refused.status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(refused.status.message(),
            "the server is busy: 2 background requests are in flight, which is their share");
  for (int i = 0; i < 2; ++i) harness.Send(Rows(1));
  gate.Open();
  for (const Outcome& outcome : harness.Await(4)) EXPECT_TRUE(outcome.status.ok());
  EXPECT_TRUE(harness.Run(InBackground(Rows(1))).status.ok());  // the share was given back
}

TEST(BackgroundShareTest, RefusedForItsModel_GivesItsShareBack) {
  Engine::Options options;
  options.limits.max_inflight_requests = 2;
  EngineHarness harness(std::move(options));
  harness.Serve(FixedSpec());
  for (int i = 0; i < 3; ++i) {
    const Outcome outcome =
        harness.Run(InBackground(InferMessage().Input("NO", "FP32", {1, 1}, RawOf<float>({1}))));
    EXPECT_EQ(outcome.status.code(), StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(harness.Run(InBackground(Rows(1))).status.ok());
}

// A model that keeps its requests is never too busy to be given more.
TEST(BackgroundKeptTest, ModelThatKeepsRequests_IsNotGivenAllThatWait) {
  constexpr size_t kCount = 9;
  VersionSpec spec = AnswerHarness::Decoupled();
  spec.max_background_rows = 2;
  FakeClock clock;
  Engine::Options options;
  options.clock = &clock;
  SenderBox box;
  AnswerHarness harness(box.Keeper(), std::move(spec), std::move(options));
  for (size_t i = 0; i < kCount; ++i) harness.Send(InBackground(InferMessage().Row({1})));
  Senders senders = box.Await(2);
  clock.AwaitWaiters(2);  // the instance and the engine's timer
  EXPECT_LE(harness.version->counters().background.running, 3U);
  size_t ended = 0;
  while (ended < kCount) {
    for (const auto& sender : senders) sender->Finish(Status::Ok());
    ended += senders.size();
    if (ended < kCount) senders = box.Await(1);
  }
  for (size_t i = 0; i < kCount; ++i) EXPECT_TRUE(harness.Await(i).status.ok());
}

}  // namespace
}  // namespace penstock
