// Everything at once, for the thread sanitizer: submitters, cancellers, instances, expiry, and a
// drain in the middle. Every request ends exactly once and the counters balance.

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

constexpr int kSubmitters = 3;
constexpr int kPerSubmitter = 1500;
constexpr int kInstances = 2;

class BatcherStress {
 public:
  explicit BatcherStress(bool preserves_ordering) : batcher_(Options(preserves_ordering)) {
    requests_.resize(kSubmitters * kPerSubmitter);
    is_accepted_ = std::vector<std::atomic<bool>>(requests_.size());
    for (size_t i = 0; i < requests_.size(); ++i) {
      requests_[i] = RequestRef(new PuppetRequest(static_cast<int>(i), &log_));
    }
  }

  void Run() {
    std::vector<std::thread> threads;
    for (int i = 0; i < kInstances; ++i) threads.emplace_back([this] { RunInstance(); });
    std::vector<std::thread> submitters;
    for (int i = 0; i < kSubmitters; ++i) submitters.emplace_back([this, i] { Submit(i); });
    threads.emplace_back([this] { Cancel(); });
    threads.emplace_back([this] { Expire(); });
    while (submitted_.load() < kSubmitters * kPerSubmitter * 3 / 4) std::this_thread::yield();
    batcher_.Close();  // in the middle of it
    for (std::thread& thread : submitters) thread.join();
    is_over_ = true;
    for (std::thread& thread : threads) thread.join();
    batcher_.FailQueued(Unavailable("the end"));
  }

  void ExpectBalance() const {
    uint64_t accepted = 0;
    for (size_t i = 0; i < requests_.size(); ++i) {
      accepted += is_accepted_[i] ? 1 : 0;
      ASSERT_EQ(PuppetBatcher::Of(requests_[i]).times_done, is_accepted_[i] ? 1 : 0) << i;
    }
    std::vector<uint64_t> by_code(17, 0);
    for (const EndLog::End& end : log_.ends()) ++by_code[static_cast<size_t>(end.status.code())];
    const auto count = [&](StatusCode code) { return by_code[static_cast<size_t>(code)]; };
    const BatcherCounters counters = batcher_.counters();
    EXPECT_GT(accepted, 0U);
    const RequestCounters& low = counters.background;
    EXPECT_GT(low.accepted, 0U);
    EXPECT_EQ(counters.accepted + low.accepted, accepted);
    EXPECT_EQ(log_.ends().size(), accepted);
    EXPECT_EQ(count(StatusCode::kCancelled), counters.cancelled_queued +
                                                 counters.cancelled_running + low.cancelled_queued +
                                                 low.cancelled_running);
    EXPECT_EQ(count(StatusCode::kDeadlineExceeded), counters.expired_queued + low.expired_queued);
    EXPECT_EQ(count(StatusCode::kUnavailable),
              counters.queue_timeouts + counters.drained + low.drained);
    EXPECT_EQ(count(StatusCode::kOk) + counters.cancelled_running + low.cancelled_running,
              run_.load());
    EXPECT_EQ(counters.pending + low.pending, 0U);
    EXPECT_EQ(counters.running + low.running, 0U);
    uint64_t closed = 0;
    for (const uint64_t n : counters.closed) closed += n;
    EXPECT_EQ(closed, batches_.load());
  }

  bool IsBackground(int id) const { return requests_[static_cast<size_t>(id)]->is_background; }

  // The ids of those that ran, in the order of their delivery.
  std::vector<int> DeliveredAfterRunning() const {
    std::vector<int> ids;
    for (const EndLog::End& end : log_.ends()) {
      if (end.status.ok()) ids.push_back(end.id);
    }
    return ids;
  }

 private:
  static Batcher::Options Options(bool preserves_ordering) {
    Batcher::Options options;
    options.policy.max_batch_size = 8;
    options.policy.max_queue_delay_ns = 20'000;
    options.levels = {{.max_queue_size = 200}, {.default_timeout_us = 200}};
    options.default_priority = 1;
    options.preserves_ordering = preserves_ordering;
    return options;
  }

  void RunInstance() {
    Batch batch;
    std::vector<Status> outcomes;
    while (batcher_.NextBatch(&batch)) {
      uint32_t rows = 0;
      for (const RequestRef& ref : batch.requests) rows += ref->rows;
      EXPECT_LE(rows, 8U);
      run_.fetch_add(batch.requests.size());
      batches_.fetch_add(1);
      outcomes.assign(batch.requests.size(), Status());
      batcher_.Finish(&batch, outcomes);
    }
  }

  void Submit(int submitter) {
    std::mt19937 random(submitter);
    for (int i = 0; i < kPerSubmitter; ++i) {
      const size_t index = static_cast<size_t>(submitter) * kPerSubmitter + i;
      const RequestRef& ref = requests_[index];
      ref->rows = random() % 4 == 0 ? 1 + random() % 8 : 1;
      ref->priority = 1 + random() % 2;
      if (random() % 4 == 0) ref->key = {static_cast<int64_t>(random() % 3)};
      if (random() % 4 == 0) ref->deadline_ns = Clock::System().NowNs() + random() % 300'000;
      ref->is_background = random() % 3 == 0;
      ref->is_job = ref->is_background && random() % 2 == 0;
      const Wake wake = random() % 2 == 0 ? Wake::kNow : Wake::kLater;
      const bool accepted = batcher_.Enqueue(ref, wake).ok();
      is_accepted_[index] = accepted;
      if (wake == Wake::kLater) batcher_.Flush();
      submitted_.fetch_add(1);
    }
  }

  void Cancel() {
    std::mt19937 random(99);
    while (!is_over_) {
      const size_t index = random() % requests_.size();
      if (is_accepted_[index]) batcher_.Cancel(*requests_[index]);
      std::this_thread::yield();
    }
  }

  void Expire() {
    while (!is_over_) {
      batcher_.ExpireDue();
      std::this_thread::yield();
    }
  }

  EndLog log_;
  std::vector<RequestRef> requests_;
  std::vector<std::atomic<bool>> is_accepted_;
  std::atomic<int> submitted_{0};
  std::atomic<uint64_t> run_{0};
  std::atomic<uint64_t> batches_{0};
  std::atomic<bool> is_over_{false};
  Batcher batcher_;
};

TEST(BatcherStressTest, EveryRequestEndsOnceAndCountersBalance) {
  BatcherStress stress(false);
  stress.Run();
  stress.ExpectBalance();
}

TEST(BatcherStressTest, Ordered_EveryRequestEndsOnceInItsSubmittersOrder) {
  BatcherStress stress(true);
  stress.Run();
  stress.ExpectBalance();
  std::vector<int> last(kSubmitters, -1);
  for (const int id : stress.DeliveredAfterRunning()) {
    if (stress.IsBackground(id)) continue;  // in no order with others
    int& previous = last[id / kPerSubmitter];
    EXPECT_GT(id, previous);
    previous = id;
  }
}

}  // namespace
}  // namespace penstock
