// Instances are added and taken out while requests come: none is lost, none waits for it.

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "answer_harness.h"
#include "engine_harness.h"
#include "load_client.h"

namespace penstock {
namespace {

class InstancesTest : public ::testing::Test {
 protected:
  std::shared_ptr<ModelVersion> Serve(FakeModelSpec::Execute execute, VersionSpec spec,
                                      bool runs_on_any_thread = false) {
    FakeModelSpec model{IdentitySignature(), std::move(execute)};
    model.live_models = &models_;
    model.live_instances = &instances_;
    model.runs_on_any_thread = runs_on_any_thread;
    auto version = *harness_.engine.CreateVersion(std::make_shared<FakeModel>(model), spec);
    harness_.engine.Start(version);
    harness_.engine.SetServing("m", {version}, {});
    return version;
  }

  // Of two instances, each of which has a request that waits for the gate.
  std::shared_ptr<ModelVersion> ServeTwoBusy(Gate& gate) {
    VersionSpec spec = IdentitySpec();
    spec.instance_count = 2;
    auto version = Serve(
        [&gate](auto inputs, auto wanted, auto* outputs) {
          gate.Pass();
          return Echo(inputs, wanted, outputs);
        },
        spec);
    for (int number = 1; number <= 2; ++number) {
      harness_.Send(InferMessage().Row({static_cast<float>(number)}));
      gate.AwaitArrived(number);
    }
    return version;
  }

  std::atomic<int> models_{0};
  std::atomic<int> instances_{0};
  EngineHarness harness_;
};

TEST_F(InstancesTest, AddedInstance_RunsABatchBesideTheFirst) {
  Gate gate;
  const auto version = Serve(
      [&](auto inputs, auto wanted, auto* outputs) {
        gate.Pass();
        return Echo(inputs, wanted, outputs);
      },
      IdentitySpec());
  harness_.Send(InferMessage().Row({1}));
  gate.AwaitArrived(1);
  harness_.Send(InferMessage().Row({2}));
  ASSERT_TRUE(version->AddInstance({}).ok());
  gate.AwaitArrived(2);  // the second request, on the second instance
  EXPECT_EQ(version->instance_counts().total, 2U);
  EXPECT_EQ(version->instance_counts().busy, 2U);
  gate.Open();
  harness_.Await(2);
}

TEST_F(InstancesTest, AddedInstance_IsWarmedUpBeforeItTakesABatch) {
  std::atomic<int> runs{0};
  const auto version = Serve(
      [&](auto inputs, auto wanted, auto* outputs) {
        runs += 1;
        return Echo(inputs, wanted, outputs);
      },
      IdentitySpec());
  const std::string message = InferMessage().Row({1}).bytes();
  const std::vector<std::string_view> warm_ups = {message, message};
  ASSERT_TRUE(version->AddInstance(warm_ups).ok());
  EXPECT_EQ(runs, 2);
  EXPECT_EQ(version->statistics().execution_count, 0U);
}

TEST_F(InstancesTest, WarmUpThatFails_LeavesTheInstancesAsTheyWere) {
  std::atomic<bool> fails{true};
  const auto version =
      Serve([&](auto inputs, auto wanted,
                auto* outputs) { return fails ? Internal("cold") : Echo(inputs, wanted, outputs); },
            IdentitySpec());
  const std::string message = InferMessage().Row({1}).bytes();
  const std::vector<std::string_view> warm_ups = {message};
  const Status status = version->AddInstance(warm_ups);
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_EQ(version->instance_counts().total, 1U);
  EXPECT_EQ(instances_, 1);
  fails = false;
  EXPECT_TRUE(harness_.Run(InferMessage().Row({1})).status.ok());
}

TEST_F(InstancesTest, RemovedInstance_EndsItsBatchAndIsFreed) {
  Gate gate;
  const auto version = ServeTwoBusy(gate);
  EXPECT_FALSE(*version->RemoveInstance(0));  // it is busy
  EXPECT_EQ(version->instance_counts().total, 1U);
  EXPECT_EQ(instances_, 2);
  gate.Open();
  for (const Outcome& outcome : harness_.Await(2)) EXPECT_TRUE(outcome.status.ok());
  ASSERT_TRUE(version->AddInstance({}).ok());
  EXPECT_TRUE(*version->RemoveInstance(kLongNs));  // the one from before as well
  EXPECT_EQ(instances_, 1);
}

TEST_F(InstancesTest, DrainWhileOneLeaves_FreesIt) {
  Gate gate;
  const auto version = ServeTwoBusy(gate);
  EXPECT_FALSE(*version->RemoveInstance(0));
  gate.Open();
  EXPECT_TRUE(harness_.engine.Drain(version, kLongNs));
  EXPECT_EQ(instances_, 0);
  EXPECT_EQ(models_, 0);
  EXPECT_EQ(version->AddInstance({}).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(version->RemoveInstance(0).status().code(), StatusCode::kFailedPrecondition);
  harness_.Await(2);
}

TEST_F(InstancesTest, LastInstance_IsKept) {
  const auto version = Serve(&Echo, IdentitySpec());
  EXPECT_EQ(version->RemoveInstance(kLongNs).status().code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(harness_.Run(InferMessage().Row({1})).status.ok());
}

// Whoever leaves may be the one that was woken for a batch or waits for its delay.
TEST_F(InstancesTest, RemovalBesideADelayedBatch_LeavesItToTheOther) {
  VersionSpec spec = IdentitySpec();
  spec.instance_count = 2;
  spec.max_queue_delay_us = 20'000;
  const auto version = Serve(&Echo, spec);
  for (int i = 0; i < 20; ++i) {
    harness_.Send(InferMessage().Row({1}));
    EXPECT_TRUE(*version->RemoveInstance(kLongNs));
    EXPECT_TRUE(harness_.Await(1)[0].status.ok());
    ASSERT_TRUE(version->AddInstance({}).ok());
  }
}

// What goes on behind its batch is the instance's affair until it has ended.
TEST(InstancesKeptTest, RemovedInstance_IsFreedOnlyWhenWhatItKeepsHasEnded) {
  SenderBox box;
  Gate gate;
  std::atomic<int> calls{0};
  std::atomic<int> instances{0};
  FakeModelSpec model{IdentitySignature(), &Echo};
  model.live_instances = &instances;
  model.answer = [&, keep = box.Keeper()](auto inputs, auto requests) {
    if (calls.fetch_add(1) == 0) gate.Pass();
    return keep(inputs, requests);
  };
  AnswerHarness harness(std::make_shared<FakeModel>(model), AnswerHarness::Decoupled());
  harness.Send(InferMessage().Row({1}));
  gate.AwaitArrived(1);  // the first instance is busy: the next request is the second's
  ASSERT_TRUE(harness.version->AddInstance({}).ok());
  harness.Send(InferMessage().Row({1}));
  const Senders kept = box.Await(1);
  EXPECT_FALSE(*harness.version->RemoveInstance(20'000'000));
  EXPECT_EQ(instances, 2);
  EXPECT_TRUE(kept[0]->Send(OneRow(1)).ok());
  kept[0]->Finish(Status::Ok());
  EXPECT_EQ(harness.Await(1).status.ToString(), "OK");
  EXPECT_EQ(harness.answered[1]->responses, 1U);
  ASSERT_TRUE(harness.version->AddInstance({}).ok());
  EXPECT_TRUE(*harness.version->RemoveInstance(kLongNs));
  EXPECT_EQ(instances, 1);
  gate.Open();
  for (const auto& sender : box.Await(1)) sender->Finish(Status::Ok());
  EXPECT_EQ(harness.Await(0).status.ToString(), "OK");
}

TEST_F(InstancesTest, ThousandRandomChangesUnderLoad_LoseNothing) {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0].dims = {1};
  const auto version = Serve(&Echo, spec, /*runs_on_any_thread=*/true);
  const std::string message =
      InferMessage().Input("IN", "FP32", {1, 1}, RawOf(std::vector<float>{1})).bytes();
  LoadClient waking(harness_.engine, message);
  LoadClient running(harness_.engine, message, version.get());
  std::mt19937 random(7);
  size_t count = 1;
  for (int change = 0; change < 1000; ++change) {
    if (count == 1 || (count < 6 && random() % 2 == 0)) {
      ASSERT_TRUE(version->AddInstance({}).ok());
      count += 1;
    } else {
      ASSERT_TRUE(*version->RemoveInstance(kLongNs));
      count -= 1;
      ASSERT_EQ(instances_, static_cast<int>(count));
    }
    ASSERT_EQ(version->instance_counts().total, count);
  }
  const uint64_t before = version->counters().accepted;
  while (version->counters().accepted < before + 100) std::this_thread::yield();
  waking.Join();
  running.Join();
  EXPECT_EQ(version->counters().accepted, waking.sent() + running.sent());
  EXPECT_TRUE(harness_.engine.Drain(version, kLongNs));
  EXPECT_EQ(instances_, 0);
}

}  // namespace
}  // namespace penstock
