// AnswerHarness: an engine with one model that answers its requests one by one, and whose senders
// the test holds.

#pragma once

#include <poll.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/response_channel.h"
#include "engine_harness.h"

namespace penstock {

using Senders = std::vector<std::shared_ptr<ResponseSender>>;

// The output OUT of one row.
inline std::vector<BatchOutput> OneRow(float value, int64_t rows = 1) {
  const std::vector<float> values(static_cast<size_t>(rows), value);
  std::vector<BatchOutput> outputs;
  outputs.push_back(
      MakeOutput(0, DataType::kFp32, {rows, 1},
                 {reinterpret_cast<const uint8_t*>(values.data()), 4 * values.size()}));
  return outputs;
}

// Keeps what senders it is given, for the test to take.
// Threading: thread-safe.
class SenderBox {
 public:
  FakeModelSpec::Answer Keeper() {
    return [this](std::span<const BatchInput>, std::span<const BatchRequest> requests) {
      MutexLock lock(mu_);
      for (const BatchRequest& request : requests) senders_.push_back(request.responses);
      changed_.NotifyAll();
      return Status::Ok();
    };
  }
  // Waits until there are `count`, and gives them away.
  Senders Await(size_t count) {
    MutexLock lock(mu_);
    while (senders_.size() < count) changed_.Wait(mu_);
    return std::exchange(senders_, {});
  }

 private:
  Mutex mu_;
  CondVar changed_;
  Senders senders_ GUARDED_BY(mu_);
};

// What a consumer saw of one request.
struct Answered {
  size_t responses = 0;
  size_t bytes = 0;
  bool is_done = false;
  int times_done = 0;
  Status status;
};

class AnswerHarness {
 public:
  explicit AnswerHarness(FakeModelSpec::Answer answer, VersionSpec spec = IdentitySpec(),
                         Engine::Options options = {})
      : AnswerHarness(MakeModel(std::move(answer)), std::move(spec), std::move(options)) {}
  AnswerHarness(std::shared_ptr<BackendModel> model, VersionSpec spec, Engine::Options options = {})
      : engine(std::move(options)) {
    version = *engine.CreateVersion(std::move(model), std::move(spec));
    engine.Start(version);
    engine.SetServing("m", {version}, {});
  }

  static VersionSpec Decoupled() {
    VersionSpec spec = IdentitySpec();
    spec.is_decoupled = true;
    return spec;
  }

  RequestRef Send(const InferMessage& message, bool is_stream = true) {
    messages_.push_back(message.bytes());
    RequestRef ref = InferRequestPool::Shared().Get();
    InferRequest& request = AsInfer(ref);
    request.message = SpanOf(messages_.back());
    request.completions = &completions;
    request.is_stream = is_stream;
    request.tag = new Answered();  // NOLINT: owned by `answered`
    answered.emplace_back(static_cast<Answered*>(request.tag));
    engine.Infer(ref);
    return ref;
  }

  // Takes what there is; with `waits` not before there is something. `credits`: as a client that
  // reads.
  void TakeSome(bool waits = true, bool credits = true) {
    pollfd descriptor{completions.fd(), POLLIN, 0};
    poll(&descriptor, 1, waits ? -1 : 0);
    std::vector<RequestRef> taken;
    completions.Take(&taken);
    for (const RequestRef& ref : taken) {
      InferRequest& request = AsInfer(ref);
      Answered& answer = *static_cast<Answered*>(request.tag);
      std::vector<ResponseBlock> blocks;
      const bool is_done = request.Take(&blocks);
      for (const ResponseBlock& block : blocks) {
        answer.responses += block.count;
        answer.bytes += block.size_bytes;
        if (credits) request.channel->Taken(block.count, block.size_bytes);
      }
      if (!is_done) continue;
      answer.is_done = true;
      answer.times_done += 1;
      answer.status = request.status;
      engine.Release(request);
    }
  }
  // Until the i-th request is done.
  const Answered& Await(size_t index = 0) {
    while (!answered[index]->is_done) TakeSome();
    return *answered[index];
  }

  CompletionQueue completions;
  Engine engine;
  std::shared_ptr<ModelVersion> version;
  std::vector<std::unique_ptr<Answered>> answered;

 private:
  static std::shared_ptr<BackendModel> MakeModel(FakeModelSpec::Answer answer) {
    FakeModelSpec model{IdentitySignature(), &Echo};
    model.answer = std::move(answer);
    return std::make_shared<FakeModel>(std::move(model));
  }

  std::list<std::string> messages_;
};

}  // namespace penstock
