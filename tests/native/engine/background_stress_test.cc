// Background requests beside others, from several threads, with submitters that run batches
// themselves, cancellers and a drain: each request ends exactly once, and the counters balance. For
// the thread sanitizer.

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "engine_harness.h"

namespace penstock {
namespace {

constexpr size_t kSubmitters = 3;
constexpr size_t kPerSubmitter = 600;

class BackgroundStress {
 public:
  BackgroundStress() {
    VersionSpec spec = IdentitySpec();
    spec.inputs[0].dims = {1};
    spec.instance_count = 2;
    spec.max_background_rows = 4;
    FakeModelSpec model{IdentitySignature(), [this](auto inputs, auto wanted, auto* outputs) {
                          EXPECT_LE(inputs[0].tensor.shape[0], 8);
                          batches_.fetch_add(1);
                          return Echo(inputs, wanted, outputs);
                        }};
    model.runs_on_any_thread = true;
    version_ = *engine_.CreateVersion(std::make_shared<FakeModel>(model), std::move(spec));
    engine_.Start(version_);
    engine_.SetServing("m", {version_}, {});
  }

  // `drains_early`: while requests still come.
  void Run(bool drains_early) {
    std::vector<std::thread> submitters;
    for (size_t i = 0; i < kSubmitters; ++i) submitters.emplace_back([this, i] { Submit(i); });
    std::thread taker([this] { TakeAll(); });
    if (drains_early) {
      while (submitted_.load() < kSubmitters * kPerSubmitter / 2) std::this_thread::yield();
      engine_.Forget("m");
      EXPECT_TRUE(engine_.Drain(version_, kLongNs));
    }
    for (std::thread& submitter : submitters) submitter.join();
    taker.join();
    EXPECT_TRUE(engine_.Drain(version_, kLongNs));
  }

  void ExpectBalance() {
    EXPECT_EQ(engine_.admission().inflight(), 0U);
    const VersionStatistics s = version_->statistics();
    const BatcherCounters counters = version_->counters();
    EXPECT_EQ(counters.pending + counters.running, 0U);
    EXPECT_EQ(counters.background.pending + counters.background.running, 0U);
    EXPECT_GT(counters.accepted, 0U);
    EXPECT_GT(counters.background.accepted, 0U);
    const auto ended = [](const RequestCounters& c) { return c.cancelled_queued + c.drained; };
    EXPECT_EQ(s.success.count + s.fail.count + ended(counters), counters.accepted);
    EXPECT_EQ(s.background.success + s.background.fail + ended(counters.background),
              counters.background.accepted);
    uint64_t closed = 0;
    for (const uint64_t count : counters.closed) closed += count;
    EXPECT_EQ(closed, batches_.load());
    // A batch all of whose requests were cancelled while it ran served nobody: no execution.
    const uint64_t executed = s.execution_count + s.background.batches;
    EXPECT_LE(executed, batches_.load());
    EXPECT_LE(batches_.load() - executed, s.fail.count + s.background.fail);
  }

 private:
  void Submit(size_t submitter) {
    std::mt19937 random(static_cast<uint32_t>(submitter));
    std::vector<RequestRef> sent;
    messages_[submitter].reserve(kPerSubmitter);
    for (size_t i = 0; i < kPerSubmitter; ++i) {
      const int64_t rows = 1 + random() % 4;
      const std::vector<float> values(static_cast<size_t>(rows), 1);
      messages_[submitter].push_back(
          InferMessage()
              .Input("IN", "FP32", {rows, 1}, RawOf(values))
              .Parameter("penstock_background", 1, random() % 3 == 0 ? 1 : 0)
              .bytes());
      RequestRef ref = InferRequestPool::Shared().Get();
      AsInfer(ref).message = SpanOf(messages_[submitter].back());
      AsInfer(ref).completions = &completions_;
      const bool is_later = random() % 2 == 0;
      engine_.Infer(
          ref, {.wake = is_later ? Wake::kLater : Wake::kNow, .is_background = random() % 3 == 0});
      if (is_later && !version_->TryRunHere()) version_->Flush();
      sent.push_back(std::move(ref));
      if (random() % 8 == 0) engine_.Cancel(sent[random() % sent.size()]);
      submitted_.fetch_add(1);
    }
  }

  // More than were sent would be one delivered twice.
  void TakeAll() {
    size_t taken = 0;
    while (taken < kSubmitters * kPerSubmitter) {
      pollfd descriptor{completions_.fd(), POLLIN, 0};
      poll(&descriptor, 1, -1);
      std::vector<RequestRef> some;
      completions_.Take(&some);
      taken += some.size();
      for (const RequestRef& ref : some) engine_.Release(AsInfer(ref));
    }
    EXPECT_EQ(taken, kSubmitters * kPerSubmitter);
  }

  std::vector<std::string> messages_[kSubmitters];
  std::atomic<size_t> submitted_{0};
  std::atomic<uint64_t> batches_{0};
  CompletionQueue completions_;
  Engine engine_{{}};
  std::shared_ptr<ModelVersion> version_;
};

TEST(BackgroundStressTest, EveryRequestEndsOnceAndCountersBalance) {
  BackgroundStress stress;
  stress.Run(/*drains_early=*/false);
  stress.ExpectBalance();
}

TEST(BackgroundStressTest, DrainWhileRequestsCome_EndsEachOfThem) {
  BackgroundStress stress;
  stress.Run(/*drains_early=*/true);
  stress.ExpectBalance();
}

}  // namespace
}  // namespace penstock
