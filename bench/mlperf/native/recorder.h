// Recorder: what came back for LoadGen's samples, and when.
//
// Answers are judged after the run, so that nothing slow stands between an answer and LoadGen: each
// different answer to a sample is kept once, with how often it came. That is every answer of the
// run, in memory that does not grow with it.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "load/histogram.h"
#include "native/target.h"

namespace penstock::loadgen {

// An answer as it came, a ModelInferResponse, and how often.
struct KnownAnswer {
  std::string message;
  uint64_t count = 0;
};

// Threading: Answer, Fail and Publish on one thread, the completing one; what is const on any, but
// latency, bins and answers after the run only.
// Ownership: owns answers and times; LoadGen borrows an answer's tensor during Publish.
// Cost: an answer that is known costs a comparison, two counters and no allocation.
class Recorder {
 public:
  using Complete = std::function<void(std::span<const Response>)>;
  static constexpr int64_t kBinNs = 100'000'000;
  // Of one sample. Batches of other sizes round otherwise, so some are honest.
  static constexpr size_t kMostDifferent = 256;
  static constexpr size_t kMostFailures = 64;  // kinds; what is beyond has one entry

  struct Options {
    size_t samples = 0;
    bool gives_tensors = false;  // to LoadGen, for its accuracy log
    Clock* clock = &Clock::System();
  };

  explicit Recorder(Options options);

  // Where Publish tells of responses: LoadGen. Before the first answer.
  void SetComplete(Complete complete) { complete_ = std::move(complete); }

  // LoadGen has issued so many more. On any thread.
  void CountIssued(size_t queries) { issued_.fetch_add(queries, std::memory_order_relaxed); }
  void Answer(const Query& query, int64_t issued_ns, std::string_view message);
  // `is_lost`: the target itself has gone. LoadGen then hears nothing more: it would ask on, faster
  // than before.
  void Fail(const Query& query, std::string text, bool is_lost);
  bool has_unpublished() const { return !responses_.empty(); }
  void Publish();

  int64_t NowNs() const { return clock_.NowNs(); }
  uint64_t issued() const { return issued_.load(std::memory_order_relaxed); }
  uint64_t done() const { return done_.load(std::memory_order_relaxed); }
  int64_t last_done_ns() const { return last_done_ns_.load(std::memory_order_relaxed); }
  bool is_lost() const { return is_lost_.load(); }
  std::map<std::string, uint64_t> failures() const;

  // Of answers, from the issue: ns.
  const load::Histogram& latency() const { return latency_; }
  // Answers that ended in each kBinNs since construction.
  const std::vector<uint64_t>& bins() const { return bins_; }
  int64_t first_ns() const { return first_ns_; }  // of an answer, since construction
  int64_t last_ns() const { return last_ns_; }
  // By sample.
  const std::vector<std::deque<KnownAnswer>>& answers() const { return answers_; }

 private:
  const KnownAnswer* Keep(size_t sample, std::string_view message);
  void Count(int64_t issued_ns);

  // Constant after SetComplete.
  Clock& clock_;
  const bool gives_tensors_;
  const int64_t began_ns_;
  Complete complete_;

  // Only on the completing thread, during a run.
  std::vector<std::deque<KnownAnswer>> answers_;  // deques: an answer stays where it is
  std::vector<Response> responses_;
  load::Histogram latency_;
  std::vector<uint64_t> bins_;
  int64_t first_ns_ = 0;
  int64_t last_ns_ = 0;

  // Own synchronisation.
  std::atomic<uint64_t> issued_{0};
  std::atomic<uint64_t> done_{0};
  std::atomic<int64_t> last_done_ns_;
  std::atomic<bool> is_lost_{false};

  mutable Mutex mu_;
  std::map<std::string, uint64_t> failures_ GUARDED_BY(mu_);
};

// Completes in place: what is left is the harness.
// Threading: as Target; the issuing thread completes.
class NullTarget final : public Target {
 public:
  // `answers` by sample. Ownership: borrows both.
  NullTarget(Recorder* recorder, const std::vector<std::string>* answers)
      : recorder_(*recorder), answers_(*answers) {}

  void Issue(std::span<const Query> queries) override {
    const int64_t now_ns = recorder_.NowNs();
    for (const Query& query : queries) recorder_.Answer(query, now_ns, answers_[query.sample]);
    recorder_.Publish();
  }

 private:
  Recorder& recorder_;
  const std::vector<std::string>& answers_;
};

}  // namespace penstock::loadgen
