// Instance::TryRunHere: the submitter runs a quick model's batch itself. Time is held still, so
// that "quick" is what a test says it is.

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "engine_harness.h"
#include "testing/fake_clock.h"
#include "testing/shm_object.h"

namespace penstock {
namespace {

VersionSpec OneElementSpec() {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0].dims = {1};
  return spec;
}

class RunHereTest : public ::testing::Test {
 protected:
  RunHereTest() : harness_(OptionsWith(clock_)) {}

  // Serves a model whose batches take `run_ns` of fake time.
  void Serve(VersionSpec spec, bool runs_on_any_thread = true, int64_t run_ns = 0) {
    once_ns_ = run_ns;
    auto execute = [this, run_ns](auto inputs, auto wanted, auto* outputs) {
      ran_on_ = std::this_thread::get_id();
      clock_.Advance(std::exchange(once_ns_, run_ns));
      if (throws_) throw std::runtime_error("after a while");
      if (gate_ != nullptr) gate_->Pass();
      return Echo(inputs, wanted, outputs);
    };
    FakeModelSpec model{IdentitySignature(), execute};
    model.runs_on_any_thread = runs_on_any_thread;
    version_ = *harness_.engine.CreateVersion(std::make_shared<FakeModel>(model), std::move(spec));
    harness_.engine.Start(version_);
    harness_.engine.SetServing("m", {version_}, {});
  }

  // Runs one request, so that the run time is known, and waits until the instance waits for work
  // again (the other waiter is the engine's timer): what is sent from then on is taken by
  // TryRunHere or by nobody.
  void RunOnce() {
    ASSERT_TRUE(harness_.Run(Message()).status.ok());
    clock_.AwaitWaiters(2);
  }

  void SendLater() { harness_.Send(Message(), kNever, Wake::kLater); }
  static InferMessage Message() { return InferMessage().Row({1}); }

  FakeClock clock_;
  Gate* gate_ = nullptr;
  bool throws_ = false;
  int64_t once_ns_ = 0;  // what the next batch takes
  std::thread::id ran_on_;
  EngineHarness harness_;
  std::shared_ptr<ModelVersion> version_;

 private:
  static Engine::Options OptionsWith(Clock& clock) {
    Engine::Options options;
    options.clock = &clock;
    options.allow_client_shm = true;
    return options;
  }
};

TEST_F(RunHereTest, RequestInSharedMemory_IsLeftToTheInstanceAndSoAreThoseWithIt) {
  Serve(OneElementSpec());
  RunOnce();
  ShmObject object(RawOf<float>({5}));
  ASSERT_TRUE(harness_.engine.shared_memory().Register(object.Region("r", 4)).ok());
  SendLater();
  harness_.Send(InferMessage().SharedInput("IN", "FP32", {1, 1}, {.byte_size = 4}), kNever,
                Wake::kLater);
  EXPECT_FALSE(version_->TryRunHere());
  version_->Flush();
  const auto outcomes = harness_.Await(2);
  EXPECT_EQ(outcomes[1].outputs[0], RawOf<float>({5}));
  EXPECT_NE(ran_on_, std::this_thread::get_id());
  clock_.AwaitWaiters(2);
  SendLater();
  EXPECT_TRUE(version_->TryRunHere());
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
}

TEST_F(RunHereTest, RefusedRequestInSharedMemory_KeepsNobodyFromRunningHere) {
  Serve(OneElementSpec());
  RunOnce();
  harness_.Send(InferMessage().SharedInput("IN", "FP32", {1, 1}, {.region = "?", .byte_size = 4}));
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kNotFound);
  SendLater();
  EXPECT_TRUE(version_->TryRunHere());
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
}

TEST_F(RunHereTest, RunTimeNotKnown_IsLeftToTheInstance) {
  Serve(OneElementSpec());
  SendLater();
  EXPECT_FALSE(version_->TryRunHere());
  version_->Flush();
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
  EXPECT_NE(ran_on_, std::this_thread::get_id());
}

TEST_F(RunHereTest, QuickModel_RunsOnTheCallersThreadAsOneBatch) {
  Serve(OneElementSpec());
  RunOnce();
  for (int i = 0; i < 3; ++i) SendLater();
  EXPECT_TRUE(version_->TryRunHere());
  EXPECT_EQ(ran_on_, std::this_thread::get_id());
  for (const Outcome& outcome : harness_.Await(3)) EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(version_->statistics().batches.at(3).count, 1U);
}

TEST_F(RunHereTest, NothingQueued_RunsNothing) {
  Serve(OneElementSpec());
  RunOnce();
  EXPECT_FALSE(version_->TryRunHere());
}

TEST_F(RunHereTest, SlowModel_IsLeftToTheInstance) {
  Serve(OneElementSpec(), true, 1'000'000);
  RunOnce();
  SendLater();
  EXPECT_FALSE(version_->TryRunHere());
  version_->Flush();
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
}

TEST_F(RunHereTest, SlowModelThatThrows_IsNotTakenForAQuickOne) {
  throws_ = true;
  Serve(OneElementSpec(), true, 1'000'000);
  EXPECT_EQ(harness_.Run(Message()).status.code(), StatusCode::kInternal);
  clock_.AwaitWaiters(2);  // the instance and the engine's timer
  SendLater();
  EXPECT_FALSE(version_->TryRunHere());
  version_->Flush();
  harness_.Await(1);
}

TEST_F(RunHereTest, OneLongBatch_LeavesThoseBehindItToTheInstance) {
  Serve(OneElementSpec());
  RunOnce();
  once_ns_ = 1'000'000'000;
  SendLater();
  ASSERT_TRUE(version_->TryRunHere());
  harness_.Await(1);
  for (int i = 0; i < 20; ++i) {
    SendLater();
    ASSERT_FALSE(version_->TryRunHere()) << i;
    version_->Flush();
    harness_.Await(1);
    clock_.AwaitWaiters(2);
  }
}

TEST_F(RunHereTest, OpenShapes_AreLeftToTheInstance) {
  Serve(IdentitySpec());
  RunOnce();
  SendLater();
  EXPECT_FALSE(version_->TryRunHere());
  version_->Flush();
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
}

TEST_F(RunHereTest, BackendOfOneThread_IsLeftToTheInstance) {
  Serve(OneElementSpec(), false);
  RunOnce();
  SendLater();
  EXPECT_FALSE(version_->TryRunHere());
  version_->Flush();
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
}

TEST_F(RunHereTest, DelayNotOver_WaitsAsThePolicySays) {
  VersionSpec spec = OneElementSpec();
  spec.max_queue_delay_us = 1000;
  Serve(spec);
  SendLater();
  version_->Flush();
  clock_.Advance(1'000'000);
  ASSERT_TRUE(harness_.Await(1)[0].status.ok());
  clock_.AwaitWaiters(2);
  SendLater();
  EXPECT_FALSE(version_->TryRunHere());
  version_->Flush();
  clock_.Advance(1'000'000);
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
}

TEST_F(RunHereTest, BackgroundRequest_IsLeftToTheInstanceAndOthersRunHereWithoutIt) {
  Serve(OneElementSpec());
  RunOnce();
  harness_.SendInBackground(Message(), kNever, Wake::kLater);
  EXPECT_FALSE(version_->TryRunHere());
  SendLater();
  EXPECT_TRUE(version_->TryRunHere());  // and wakes the instance for the other
  EXPECT_EQ(version_->statistics().batches.at(1).count, 2U);
  for (const Outcome& outcome : harness_.Await(2)) EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(version_->counters().background.accepted, 1U);
  clock_.AwaitWaiters(2);
  EXPECT_NE(ran_on_, std::this_thread::get_id());
}

TEST_F(RunHereTest, TimeOfBackgroundBatches_SaysNothingAboutOthers) {
  Serve(OneElementSpec());
  RunOnce();
  for (int i = 0; i < 20; ++i) {
    once_ns_ = 1'000'000'000;
    harness_.SendInBackground(Message());
    harness_.Await(1);
    clock_.AwaitWaiters(2);
  }
  SendLater();
  EXPECT_TRUE(version_->TryRunHere());
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
}

TEST_F(RunHereTest, QuickBatchesThatBackgroundRequestsJoined_EndTheMemoryOfASlowOne) {
  Serve(OneElementSpec());
  RunOnce();
  once_ns_ = 1'000'000'000;
  RunOnce();
  for (int i = 0; i < 64; ++i) {
    harness_.Send(Message().Parameter("penstock_background", 1, 1), kNever, Wake::kLater);
    SendLater();
    version_->Flush();
    harness_.Await(2);
    clock_.AwaitWaiters(2);
  }
  EXPECT_EQ(version_->statistics().batches.at(2).count, 64U);
  SendLater();
  EXPECT_TRUE(version_->TryRunHere());
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
}

TEST_F(RunHereTest, BackgroundRequestInSharedMemory_KeepsNobodyFromRunningHere) {
  Serve(OneElementSpec());
  RunOnce();
  ShmObject object(RawOf<float>({5}));
  ASSERT_TRUE(harness_.engine.shared_memory().Register(object.Region("r", 4)).ok());
  harness_.SendInBackground(InferMessage().SharedInput("IN", "FP32", {1, 1}, {.byte_size = 4}),
                            kNever, Wake::kLater);
  SendLater();
  EXPECT_TRUE(version_->TryRunHere());
  for (const Outcome& outcome : harness_.Await(2)) EXPECT_TRUE(outcome.status.ok());
}

TEST_F(RunHereTest, BusyInstance_IsNotRunTwiceAtATime) {
  Gate gate;
  Serve(OneElementSpec());
  ASSERT_TRUE(harness_.Run(Message()).status.ok());
  gate_ = &gate;
  harness_.Send(Message());
  gate.AwaitArrived(1);
  SendLater();
  EXPECT_FALSE(version_->TryRunHere());
  gate.Open();
  EXPECT_EQ(harness_.Await(2).size(), 2U);
}

TEST_F(RunHereTest, DrainedVersion_RunsNothing) {
  Serve(OneElementSpec());
  ASSERT_TRUE(harness_.Run(Message()).status.ok());
  ASSERT_TRUE(harness_.engine.Drain(version_, kLongNs));
  EXPECT_FALSE(version_->TryRunHere());
}

// Two submitters and the instance's thread, on one instance: everything ends once, nothing runs
// twice at a time.
TEST(RunHereStressTest, SubmittersAndInstance_ShareTheInstance) {
  constexpr int kEach = 2000;
  FakeClock clock;
  Engine::Options options;
  options.clock = &clock;
  EngineHarness harness(options);
  std::atomic<int> running{0};
  std::atomic<int> overlaps{0};
  FakeModelSpec model{IdentitySignature(), [&](auto inputs, auto wanted, auto* outputs) {
                        if (running.fetch_add(1) != 0) overlaps.fetch_add(1);
                        const Status status = Echo(inputs, wanted, outputs);
                        running.fetch_sub(1);
                        return status;
                      }};
  model.runs_on_any_thread = true;
  const auto version =
      *harness.engine.CreateVersion(std::make_shared<FakeModel>(model), OneElementSpec());
  harness.engine.Start(version);
  harness.engine.SetServing("m", {version}, {});
  const std::string message = InferMessage().Row({1}).bytes();
  auto submit = [&] {
    for (int i = 0; i < kEach; ++i) {
      RequestRef ref = InferRequestPool::Shared().Get();
      AsInfer(ref).message = SpanOf(message);
      AsInfer(ref).completions = &harness.completions;
      harness.engine.Infer(ref, {0, Wake::kLater});
      if (!version->TryRunHere()) version->Flush();
    }
  };
  std::thread first(submit);
  std::thread second(submit);
  const auto outcomes = harness.Await(2 * kEach);
  first.join();
  second.join();
  EXPECT_EQ(outcomes.size(), 2U * kEach);
  for (const Outcome& outcome : outcomes) ASSERT_TRUE(outcome.status.ok());
  EXPECT_EQ(overlaps.load(), 0);
  EXPECT_EQ(version->statistics().success.count, 2U * kEach);
}

}  // namespace
}  // namespace penstock
