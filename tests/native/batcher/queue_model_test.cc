// The batcher's queue against a model that is too plain to be wrong: a vector that is searched from
// the front. Random submissions, cancellations, passing time and batches; after every step both
// must agree on who ended how and on what the next batch is.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

constexpr uint32_t kMaxBatchSize = 8;
constexpr int64_t kUsInNs = 1000;

// Level 1 rejects on timeout, level 2 delays, level 3 has no time limit of its own.
std::vector<QueuePolicy> Levels() {
  return {{.default_timeout_us = 40}, {.default_timeout_us = 30, .delays_on_timeout = true}, {}};
}

struct Entry {
  int id;
  uint32_t rows;
  BatchKey key;
  uint32_t level;  // as RequestQueue counts: two per priority
  uint64_t order;  // in its level
  int64_t enqueue_ns;
  int64_t timeout_ns;  // kNever once it has been used up
  int64_t deadline_ns;

  int64_t expiry_ns() const { return std::min(timeout_ns, deadline_ns); }
};

class Model {
 public:
  using Ends = std::vector<std::pair<int, StatusCode>>;

  void Add(Entry entry) {
    entry.order = next_order_++;
    entries_.push_back(std::move(entry));
  }

  bool Cancel(int id) {
    return std::erase_if(entries_, [id](const Entry& e) { return e.id == id; }) == 1;
  }

  // One at a time, the earliest first; the order among equals is free, so ends come sorted by id.
  Ends Expire(int64_t now_ns) {
    Ends ends;
    for (;;) {
      const auto first = std::min_element(entries_.begin(), entries_.end(), ExpiresEarlier);
      if (first == entries_.end() || first->expiry_ns() > now_ns) break;
      const bool by_timeout = first->timeout_ns < first->deadline_ns;
      if (by_timeout && first->level / 2 == 1) {
        first->level |= 1;
        first->timeout_ns = kNever;
        first->order = next_order_++;
        continue;
      }
      ends.emplace_back(first->id,
                        by_timeout ? StatusCode::kUnavailable : StatusCode::kDeadlineExceeded);
      entries_.erase(first);
    }
    std::sort(ends.begin(), ends.end());
    return ends;
  }

  // The ids of the next batch, removed; with delay 0 whatever fits is taken.
  std::vector<int> Take(const std::vector<uint32_t>& preferred) {
    std::sort(entries_.begin(), entries_.end(), [](const Entry& a, const Entry& b) {
      return std::pair(a.level, a.order) < std::pair(b.level, b.order);
    });
    std::vector<int> ids;
    std::vector<int> preferred_ids;
    uint32_t rows = 0;
    for (const Entry& entry : entries_) {
      if (entry.key != entries_[0].key) continue;
      if (rows + entry.rows > kMaxBatchSize) break;
      rows += entry.rows;
      ids.push_back(entry.id);
      if (std::count(preferred.begin(), preferred.end(), rows) > 0) preferred_ids = ids;
    }
    if (!preferred_ids.empty()) ids = preferred_ids;
    for (const int id : ids) Cancel(id);
    return ids;
  }

  size_t size() const { return entries_.size(); }
  int64_t next_expiry_ns() const {
    const auto first = std::min_element(entries_.begin(), entries_.end(), ExpiresEarlier);
    return first == entries_.end() ? kNever : first->expiry_ns();
  }

 private:
  static bool ExpiresEarlier(const Entry& a, const Entry& b) {
    return a.expiry_ns() < b.expiry_ns();
  }

  std::vector<Entry> entries_;
  uint64_t next_order_ = 0;
};

class QueueModelTest : public testing::TestWithParam<uint32_t> {
 protected:
  QueueModelTest() : puppet_(Options()) {}

  Batcher::Options Options() {
    Batcher::Options options;
    options.policy.max_batch_size = kMaxBatchSize;
    options.policy.preferred_batch_sizes = preferred_;
    options.levels = Levels();
    options.default_priority = 3;
    return options;
  }

  int64_t Random(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

  void Submit() {
    puppet_.clock().Advance(3);  // no two arrive together: no two time-outs coincide
    PuppetSpec spec;
    spec.rows = Random(0, 3) == 0 ? static_cast<uint32_t>(Random(1, kMaxBatchSize)) : 1;
    if (Random(0, 2) == 0) spec.key = {Random(1, 3)};
    spec.priority = static_cast<uint32_t>(Random(0, 4));
    // A deadline lies between the steps of time: it never falls together with a timeout.
    if (Random(0, 3) == 0) spec.timeout_us = Random(1, 50);
    if (Random(0, 3) == 0) spec.deadline_ns = puppet_.clock().NowNs() + Random(1, 90) * 1000 + 1;
    const RequestRef ref = puppet_.Queue(spec);
    live_[PuppetBatcher::Of(ref).id] = ref;

    const int64_t now_ns = puppet_.clock().NowNs();
    const uint32_t priority = spec.priority >= 1 && spec.priority <= 3 ? spec.priority : 3;
    const int64_t model_us = Levels()[priority - 1].default_timeout_us;
    int64_t timeout_us = spec.timeout_us == 0 ? model_us : spec.timeout_us;
    if (model_us > 0) timeout_us = std::min(timeout_us, model_us);
    model_.Add({PuppetBatcher::Of(ref).id, spec.rows, spec.key, 2 * (priority - 1), 0, now_ns,
                timeout_us == 0 ? kNever : now_ns + timeout_us * kUsInNs, spec.deadline_ns});
  }

  void CancelOne() {
    if (live_.empty()) return;
    const auto victim = std::next(live_.begin(), Random(0, static_cast<int64_t>(live_.size()) - 1));
    const size_t seen = puppet_.log().ends().size();
    puppet_.batcher().Cancel(*victim->second);
    ASSERT_TRUE(model_.Cancel(victim->first));
    const auto ends = puppet_.log().ends();
    ASSERT_EQ(ends.size(), seen + 1);
    ASSERT_EQ(ends.back().id, victim->first);
    ASSERT_EQ(ends.back().status.code(), StatusCode::kCancelled);
    live_.erase(victim);
  }

  void ExpireDue() {
    const size_t seen = puppet_.log().ends().size();
    const int64_t next_ns = puppet_.batcher().ExpireDue();
    Model::Ends got;
    const auto ends = puppet_.log().ends();
    for (size_t i = seen; i < ends.size(); ++i) {
      got.emplace_back(ends[i].id, ends[i].status.code());
      live_.erase(ends[i].id);
    }
    std::sort(got.begin(), got.end());
    ASSERT_EQ(got, model_.Expire(puppet_.clock().NowNs()));
    ASSERT_EQ(next_ns, model_.next_expiry_ns());
  }

  void RunBatch() {
    Batch batch = puppet_.Next();
    const std::vector<int> ids = PuppetBatcher::Ids(batch);
    ASSERT_EQ(ids, model_.Take(preferred_));
    for (const int id : ids) live_.erase(id);
    if (!ids.empty()) puppet_.Finish(&batch);
  }

  std::mt19937 random_{GetParam()};
  const std::vector<uint32_t> preferred_ =
      GetParam() % 2 == 0 ? std::vector<uint32_t>{} : std::vector<uint32_t>{2, 6};
  PuppetBatcher puppet_;
  Model model_;
  std::map<int, RequestRef> live_;  // queued
};

TEST_P(QueueModelTest, RandomOperations_AgreeWithTheModel) {
  for (int step = 0; step < 3000 && !HasFatalFailure(); ++step) {
    ExpireDue();
    switch (Random(0, 9)) {
      case 0:
        CancelOne();
        break;
      case 1:
      case 2:
        puppet_.clock().Advance(Random(0, 20) * kUsInNs);
        break;
      case 3:
        RunBatch();
        break;
      default:
        Submit();
    }
    ASSERT_EQ(puppet_.batcher().counters().pending, model_.size());
  }
  while (!HasFatalFailure() && model_.size() > 0) RunBatch();
  const BatcherCounters counters = puppet_.batcher().counters();
  EXPECT_EQ(counters.accepted, puppet_.log().ends().size());
  EXPECT_EQ(counters.pending, 0U);
  EXPECT_EQ(counters.running, 0U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, QueueModelTest, testing::Range(1U, 9U));

}  // namespace
}  // namespace penstock
