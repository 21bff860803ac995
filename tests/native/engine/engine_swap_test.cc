// Versions are swapped while clients send: no request is lost, none is answered twice, none fails.

#include <gtest/gtest.h>

#include <atomic>
#include <list>
#include <thread>

#include "engine_harness.h"

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

// A submitter with its own completion queue, as a transport's thread has.
class Client {
 public:
  explicit Client(Engine& engine) : engine_(engine), thread_([this] { Run(); }) {}
  void Join() {
    is_over_ = true;
    thread_.join();
  }
  int sent() const { return sent_; }
  int good() const { return good_; }

 private:
  static constexpr int kWindow = 16;

  void Run() {
    const std::string message = InferMessage().Row({1, 2}).bytes();
    int inflight = 0;
    while (!is_over_ || inflight > 0) {
      for (; inflight < kWindow && !is_over_; ++inflight) Send(message);
      if (inflight == 0) break;
      pollfd descriptor{completions_.fd(), POLLIN, 0};
      poll(&descriptor, 1, -1);
      std::vector<RequestRef> taken;
      completions_.Take(&taken);
      for (const RequestRef& ref : taken) {
        good_ += AsInfer(ref).status.ok() ? 1 : 0;
        EXPECT_EQ(AsInfer(ref).status.ToString(), "OK");
        engine_.Release(AsInfer(ref));
        --inflight;
      }
    }
  }
  void Send(const std::string& message) {
    const RequestRef ref = InferRequestPool::Shared().Get();
    AsInfer(ref).message = SpanOf(message);
    AsInfer(ref).completions = &completions_;
    engine_.Infer(ref);
    ++sent_;
  }

  Engine& engine_;
  CompletionQueue completions_;
  std::atomic<bool> is_over_{false};
  int sent_ = 0;
  int good_ = 0;
  std::thread thread_;
};

TEST(EngineSwapTest, SwapsUnderLoad_LoseNothing) {
  EngineHarness harness;
  auto serving = harness.Serve(IdentitySpec(1));
  std::list<Client> clients;
  for (int i = 0; i < 2; ++i) clients.emplace_back(harness.engine);
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
  int sent = 0;
  int good = 0;
  for (Client& client : clients) {
    client.Join();
    sent += client.sent();
    good += client.good();
  }
  accepted += serving->counters().accepted;
  EXPECT_EQ(good, sent);
  EXPECT_EQ(accepted, static_cast<uint64_t>(sent));
  EXPECT_EQ(harness.engine.admission().inflight(), 0U);
  EXPECT_EQ(harness.engine.completed().at(StatusCode::kOk), static_cast<uint64_t>(sent));
}

}  // namespace
}  // namespace penstock
