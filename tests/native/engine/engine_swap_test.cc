// Versions are swapped while clients send: no request is lost, none is answered twice, none fails.

#include <gtest/gtest.h>

#include <list>
#include <thread>

#include "engine_harness.h"
#include "load_client.h"

namespace penstock {
namespace {

TEST(EngineSwapTest, RequestsQueuedBeforeTheSwap_AreAnsweredByTheOldVersion) {
  Gate gate;
  EngineHarness harness;
  const auto old = harness.Serve(IdentitySpec(1), [&](auto inputs, auto wanted, auto* outputs) {
    gate.Pass();
    return Echo(inputs, wanted, outputs);
  });
  harness.Send(InferMessage().Row({1}));
  gate.AwaitArrived(1);
  harness.Send(InferMessage().Row({1}));
  harness.Serve(IdentitySpec(2));
  EXPECT_EQ(harness.Run(InferMessage().Row({1})).model_version, "2");
  gate.Open();
  for (const Outcome& outcome : harness.Await(2)) {
    EXPECT_TRUE(outcome.status.ok());
    EXPECT_EQ(outcome.model_version, "1");
  }
  EXPECT_TRUE(harness.engine.Drain(old, kLongNs));
}

TEST(EngineSwapTest, SwapsUnderLoad_LoseNothing) {
  EngineHarness harness;
  auto serving = harness.Serve(IdentitySpec(1));
  std::list<LoadClient> clients;
  for (int i = 0; i < 2; ++i) {
    clients.emplace_back(harness.engine, InferMessage().Row({1, 2}).bytes());
  }
  uint64_t accepted = 0;
  for (int64_t version = 2; version <= 15; ++version) {
    VersionSpec spec = IdentitySpec(version);
    spec.instance_count = 1 + version % 2;
    auto next = harness.Serve(spec);
    ASSERT_TRUE(harness.engine.Drain(serving, kLongNs));
    accepted += serving->counters().accepted;
    serving = next;
    while (serving->counters().accepted < 50) std::this_thread::yield();
  }
  uint64_t sent = 0;
  for (LoadClient& client : clients) {
    client.Join();
    sent += client.sent();
  }
  accepted += serving->counters().accepted;
  EXPECT_EQ(accepted, sent);
  EXPECT_EQ(harness.engine.admission().inflight(), 0U);
  EXPECT_EQ(harness.engine.completed().at(StatusCode::kOk), sent);
}

}  // namespace
}  // namespace penstock
