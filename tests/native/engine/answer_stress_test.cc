// Requests that are answered, cancelled, dropped and drained from several threads at once: each ends
// exactly once. For the thread sanitizer.

#include <gtest/gtest.h>

#include <thread>

#include "answer_harness.h"
#include "testing/repeat_model.h"

namespace penstock {
namespace {

constexpr size_t kRequests = 400;

// Answers on two threads of its own, each request in a way of its own.
class RestlessModel {
 public:
  FakeModelSpec::Answer Answer() {
    return [this](std::span<const BatchInput>, std::span<const BatchRequest> requests) {
      MutexLock lock(mu_);
      for (const BatchRequest& request : requests) waiting_.push_back(request.responses);
      changed_.NotifyAll();
      return Status::Ok();
    };
  }

  void Run() {
    for (size_t turn = 0;; ++turn) {
      std::shared_ptr<ResponseSender> sender;
      {
        MutexLock lock(mu_);
        while (waiting_.empty() && !is_over_) changed_.Wait(mu_);
        if (waiting_.empty()) return;
        sender = std::move(waiting_.back());
        waiting_.pop_back();
      }
      const size_t wanted = turn % 7;
      for (size_t i = 0; i < wanted && sender->Send(OneRow(1)).ok(); ++i) {
      }
      if (turn % 5 == 0) continue;  // dropped
      if (turn % 4 == 0 && sender->SendLast(OneRow(1)).ok()) continue;
      if (turn % 3 == 0) sender->NotifyRoom([sender] { sender->Finish(Status::Ok()); });
      sender->Finish(Status::Ok());
    }
  }

  void End() {
    MutexLock lock(mu_);
    is_over_ = true;
    changed_.NotifyAll();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  Senders waiting_ GUARDED_BY(mu_);
  bool is_over_ GUARDED_BY(mu_) = false;
};

TEST(AnswerStressTest, EveryRequestEndsExactlyOnce) {
  RestlessModel model;
  VersionSpec spec = AnswerHarness::Decoupled();
  spec.instance_count = 2;
  AnswerHarness harness(model.Answer(), spec);
  std::thread first([&] { model.Run(); });
  std::thread second([&] { model.Run(); });
  std::vector<RequestRef> sent;
  for (size_t i = 0; i < kRequests; ++i) {
    sent.push_back(harness.Send(InferMessage().Row({1})));
    if (i % 4 == 0) harness.engine.Cancel(sent[i / 2]);
    if (i % 8 == 0) harness.TakeSome(/*waits=*/false, /*credits=*/i % 16 == 0);
  }
  std::thread drainer([&] {
    while (!harness.engine.Drain(harness.version, 1'000'000)) {
    }
  });
  for (size_t i = 0; i < kRequests; ++i) harness.Await(i);
  drainer.join();
  model.End();
  first.join();
  second.join();
  harness.TakeSome(/*waits=*/false);
  for (const auto& answered : harness.answered) EXPECT_EQ(answered->times_done, 1);
  EXPECT_EQ(harness.engine.admission().inflight(), 0U);
  const BatcherCounters counters = harness.version->counters();
  EXPECT_EQ(counters.running, 0U);
  EXPECT_EQ(counters.pending, 0U);
  const VersionStatistics statistics = harness.version->statistics();
  EXPECT_LE(statistics.success.count + statistics.fail.count, kRequests);
}

// A model that sends whenever there is room, from whichever thread brings it.
TEST(AnswerStressTest, SquareModel_SendsAllThatIsTaken) {
  constexpr int32_t kResponses = 2000;
  VersionSpec spec;
  spec.model_name = "m";
  spec.version = 1;
  spec.inputs = {{.name = "IN", .dtype = DataType::kInt32, .dims = {1}, .reshape = {}}};
  spec.outputs = {
      {.name = "OUT", .dtype = DataType::kInt32, .dims = {1}, .reshape = {}, .labels = {}}};
  spec.is_decoupled = true;
  AnswerHarness harness(MakeSquareModel(), spec);
  std::vector<RequestRef> sent;
  for (size_t i = 0; i < 12; ++i) {
    const std::string count = RawOf<int32_t>({kResponses});
    sent.push_back(harness.Send(InferMessage().Input("IN", "INT32", {1}, count)));
  }
  std::thread canceller([&] {
    for (size_t i = 0; i < sent.size(); i += 3) harness.engine.Cancel(sent[i]);
  });
  for (size_t i = 0; i < sent.size(); ++i) {
    const Answered& answered = harness.Await(i);
    EXPECT_LE(answered.responses, size_t{kResponses});
    if (i % 3 != 0) {
      EXPECT_TRUE(answered.status.ok());
      EXPECT_EQ(answered.responses, size_t{kResponses});
    }
  }
  canceller.join();
  EXPECT_TRUE(harness.engine.Drain(harness.version, kLongNs));
}

}  // namespace
}  // namespace penstock
