// LoadClient: a thread that keeps a window of requests in flight, each of which has to succeed.

#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine_harness.h"

namespace penstock {

// A submitter with a completion queue of its own, as a transport's thread has. The queue lives as
// long as the engine: whoever delivers the last outcome wakes it after that was taken.
class LoadClient {
 public:
  // `runs_here`: the version whose quick batches it runs itself, as transports do; null: none.
  LoadClient(Engine& engine, std::string message, ModelVersion* runs_here = nullptr)
      : engine_(engine),
        message_(std::move(message)),
        runs_here_(runs_here),
        completions_(engine.MakeCompletionQueue()),
        thread_([this] { Run(); }) {}
  // Ends once everything is answered.
  void Join() {
    is_over_ = true;
    thread_.join();
    EXPECT_EQ(good_, sent_);
  }
  // After Join.
  uint64_t sent() const { return sent_; }

 private:
  static constexpr int kWindow = 16;

  void Run() {
    int inflight = 0;
    while (!is_over_ || inflight > 0) {
      for (; inflight < kWindow && !is_over_; ++inflight) Send();
      if (inflight == 0) break;
      pollfd descriptor{completions_->fd(), POLLIN, 0};
      poll(&descriptor, 1, -1);
      std::vector<RequestRef> taken;
      completions_->Take(&taken);
      for (const RequestRef& ref : taken) {
        good_ += AsInfer(ref).status.ok() ? 1 : 0;
        EXPECT_EQ(AsInfer(ref).status.ToString(), "OK");
        engine_.Release(AsInfer(ref));
        --inflight;
      }
    }
  }
  void Send() {
    const RequestRef ref = InferRequestPool::Shared().Get();
    AsInfer(ref).message = SpanOf(message_);
    AsInfer(ref).completions = completions_.get();
    engine_.Infer(ref, {.wake = runs_here_ == nullptr ? Wake::kNow : Wake::kLater});
    if (runs_here_ != nullptr && !runs_here_->TryRunHere()) runs_here_->Flush();
    ++sent_;
  }

  Engine& engine_;
  const std::string message_;
  ModelVersion* const runs_here_;
  const std::shared_ptr<CompletionQueue> completions_;
  std::atomic<bool> is_over_{false};
  uint64_t sent_ = 0;  // of the thread, until it is joined
  uint64_t good_ = 0;
  std::thread thread_;
};

}  // namespace penstock
