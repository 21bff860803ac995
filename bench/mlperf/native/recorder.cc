#include "native/recorder.h"

#include <utility>

#include "base/strcat.h"
#include "load/message.h"

namespace penstock::loadgen {
namespace {

constexpr uint32_t kRawOutputContents = 6;  // of ModelInferResponse

// The tensor of an answer with one output.
std::string_view TensorOf(const KnownAnswer& answer) {
  const auto field = load::FindField(answer.message, kRawOutputContents);
  return field ? field->payload : std::string_view();
}

}  // namespace

Recorder::Recorder(Options options)
    : clock_(*options.clock),
      gives_tensors_(options.gives_tensors),
      began_ns_(clock_.NowNs()),
      answers_(options.samples),
      last_done_ns_(began_ns_) {}

void Recorder::Answer(const Query& query, int64_t issued_ns, std::string_view message) {
  const KnownAnswer* const known = Keep(query.sample, message);
  if (known == nullptr) {
    Fail(query, StrCat("more than ", kMostDifferent, " different answers to sample ", query.sample),
         false);
    return;
  }
  Count(issued_ns);
  responses_.push_back({query.id, gives_tensors_ ? TensorOf(*known) : std::string_view()});
}

// Null: there are too many different ones already.
const KnownAnswer* Recorder::Keep(size_t sample, std::string_view message) {
  auto& known = answers_[sample];
  for (KnownAnswer& answer : known) {
    if (answer.message != message) continue;
    ++answer.count;
    return &answer;
  }
  if (known.size() == kMostDifferent) return nullptr;
  return &known.emplace_back(KnownAnswer{std::string(message), 1});
}

void Recorder::Count(int64_t issued_ns) {
  const int64_t now_ns = clock_.NowNs();
  latency_.Record(now_ns - issued_ns);
  last_ns_ = now_ns - began_ns_;
  if (latency_.count() == 1) first_ns_ = last_ns_;
  const auto bin = static_cast<size_t>(last_ns_ / kBinNs);
  if (bin >= bins_.size()) bins_.resize(bin + 1);
  ++bins_[bin];
}

void Recorder::Fail(const Query& query, std::string text, bool is_lost) {
  {
    const MutexLock lock(mu_);
    const bool is_known = failures_.contains(text);
    if (!is_known && failures_.size() >= kMostFailures) text = "other failures";
    ++failures_[std::move(text)];
  }
  if (is_lost) is_lost_.store(true);
  responses_.push_back({query.id, {}});
}

void Recorder::Publish() {
  if (responses_.empty()) return;
  last_done_ns_.store(clock_.NowNs(), std::memory_order_relaxed);
  done_.fetch_add(responses_.size(), std::memory_order_relaxed);
  if (!is_lost()) complete_(responses_);
  responses_.clear();
}

std::map<std::string, uint64_t> Recorder::failures() const {
  const MutexLock lock(mu_);
  return failures_;
}

}  // namespace penstock::loadgen
