// What a decoupled model sends, where whoever takes it throws.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <stdexcept>

#include "worker_fixture.h"

namespace penstock {
namespace {

using testing::HasSubstr;

// Throws at every call that the thread makes; keeps how it ended.
class ThrowingStreams final : public WorkerStreams {
 public:
  void OnSent() override {}
  void OnResponse(uint32_t, WorkerAnswer, bool) override { throw std::bad_alloc(); }
  void OnLast(uint32_t) override { throw std::bad_alloc(); }
  void OnEnd(const Status& status) override {
    {
      MutexLock lock(mu_);
      end_ = status;
      has_ended_ = true;
      changed_.NotifyAll();
    }
    throw std::runtime_error("the sink of a batch is broken");
  }
  bool Look(const StreamsLook&) override { return true; }

  Status AwaitEnd() {
    MutexLock lock(mu_);
    while (!has_ended_) changed_.Wait(mu_);
    return end_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool has_ended_ GUARDED_BY(mu_) = false;
  Status end_ GUARDED_BY(mu_);
};

// Every exception of the thread that watches a worker comes from memory or from such a sink.
TEST(WorkerStreamsTest, SinkThatThrows_EndsItsWorkerIsToldAndTheNextWorkerServes) {
  const auto worker = ReadyPuppet(PuppetOptions("streams"));
  const std::vector<float> values = {1, 2};
  const std::span bytes(reinterpret_cast<const uint8_t*>(values.data()),
                        values.size() * sizeof(float));
  const WorkerTensor input{0, {"INPUT0", DataType::kFp32, Shape{2}, bytes}};
  const size_t wanted[] = {0};
  std::array<WorkerRequest, 1> requests;
  requests[0].room = 1;
  requests[0].wanted = wanted;
  testing::internal::CaptureStderr();
  for (int life = 0; life < 2; ++life) {
    std::shared_ptr<ThrowingStreams> streams;
    Status sent;
    do {  // again while the worker before this one is ending
      AwaitReady(*worker, true);
      streams = std::make_shared<ThrowingStreams>();
      std::atomic<uint64_t> batch = 0;
      SlabArena arena;
      sent = worker->RunStreams({{&input, 1}, wanted, requests}, &arena, streams, &batch);
    } while (!sent.ok());
    const Status end = streams->AwaitEnd();
    EXPECT_EQ(end.code(), StatusCode::kUnavailable);
    EXPECT_THAT(std::string(end.message()), HasSubstr("could not handle what it sent"));
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("the sink of a batch is broken"));
}

}  // namespace
}  // namespace penstock
