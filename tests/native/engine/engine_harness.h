// EngineHarness: an engine with fake models and a consumer that takes completions as a loop does.

#pragma once

#include <poll.h>

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "infer_message.h"
#include "testing/fake_backend.h"

namespace penstock {

inline constexpr int64_t kLongNs = int64_t{60} * 1'000'000'000;  // never waited out

// IN FP32 [-1, dims...] -> OUT, the same.
inline ModelSignature IdentitySignature(const Shape& file_dims = {-1, -1}) {
  return {{{"IN", DataType::kFp32, file_dims}}, {{"OUT", DataType::kFp32, file_dims}}};
}

// How IdentitySignature's model is served as "m" in batches of up to 8.
inline VersionSpec IdentitySpec(int64_t version = 1) {
  VersionSpec spec;
  spec.model_name = "m";
  spec.version = version;
  spec.inputs = {{.name = "IN", .dtype = DataType::kFp32, .dims = {-1}, .reshape = {}}};
  spec.outputs = {
      {.name = "OUT", .dtype = DataType::kFp32, .dims = {-1}, .reshape = {}, .labels = {}}};
  spec.max_batch_size = 8;
  return spec;
}

inline std::shared_ptr<BackendModel> MakeModel(FakeModelSpec::Execute execute = &Echo,
                                               ModelSignature signature = IdentitySignature()) {
  return std::make_shared<FakeModel>(FakeModelSpec{std::move(signature), std::move(execute)});
}

// What came out of the completion queue for one request.
struct Outcome {
  Status status;
  std::string model_version;
  std::vector<std::string> outputs;  // bytes
  std::vector<std::string> shapes;
};

class EngineHarness {
 public:
  explicit EngineHarness(Engine::Options options = {}) : engine(std::move(options)) {}

  std::shared_ptr<ModelVersion> Create(VersionSpec spec, FakeModelSpec::Execute execute = &Echo,
                                       ModelSignature signature = IdentitySignature()) {
    auto version =
        engine.CreateVersion(MakeModel(std::move(execute), std::move(signature)), std::move(spec));
    assert(version.ok());
    return *std::move(version);
  }
  std::shared_ptr<ModelVersion> Serve(VersionSpec spec, FakeModelSpec::Execute execute = &Echo,
                                      ModelSignature signature = IdentitySignature()) {
    const std::string name = spec.model_name;
    auto version = Create(std::move(spec), std::move(execute), std::move(signature));
    engine.Start(version);
    engine.SetServing(name, {version}, {});
    return version;
  }

  // Sends `message`; it is kept until the harness goes.
  RequestRef Send(const InferMessage& message, int64_t deadline_ns = kNever,
                  Wake wake = Wake::kNow) {
    return SendAs({.wake = wake}, message, deadline_ns);
  }
  RequestRef SendInBackground(const InferMessage& message, int64_t deadline_ns = kNever,
                              Wake wake = Wake::kNow) {
    return SendAs({.wake = wake, .is_background = true}, message, deadline_ns);
  }
  RequestRef SendAs(const Engine::InferOptions& options, const InferMessage& message,
                    int64_t deadline_ns) {
    messages_.push_back(message.bytes());
    RequestRef ref = InferRequestPool::Shared().Get();
    InferRequest& request = AsInfer(ref);
    request.message = SpanOf(messages_.back());
    request.completions = &completions;
    request.deadline_ns = deadline_ns;
    engine.Infer(ref, options);
    return ref;
  }

  // Waits until at least one request is done; all that are, in order.
  std::vector<Outcome> AwaitSome() {
    pollfd descriptor{completions.fd(), POLLIN, 0};
    poll(&descriptor, 1, -1);
    std::vector<RequestRef> taken;
    completions.Take(&taken);
    std::vector<Outcome> outcomes;
    for (const RequestRef& ref : taken) {
      if (AsInfer(ref).retries) {
        engine.Retry(ref);
        if (AsInfer(ref).version != nullptr) AsInfer(ref).version->Flush();
        continue;
      }
      outcomes.push_back(OutcomeOf(AsInfer(ref)));
      engine.Release(AsInfer(ref));
    }
    return outcomes;
  }
  // The outcomes of `count` requests in order of completion; more would be one delivered twice.
  std::vector<Outcome> Await(size_t count) {
    std::vector<Outcome> all;
    while (all.size() < count) {
      for (Outcome& outcome : AwaitSome()) all.push_back(std::move(outcome));
    }
    return all;
  }
  Outcome Run(const InferMessage& message) {
    Send(message);
    return Await(1)[0];
  }

  CompletionQueue completions;
  Engine engine;

 private:
  static Outcome OutcomeOf(const InferRequest& request) {
    Outcome outcome{request.status, "", {}, {}};
    if (request.version != nullptr) outcome.model_version = request.version->version_text();
    if (!request.status.ok()) return outcome;
    for (const TensorView& output : request.outputs) {
      outcome.outputs.push_back(TextOf(output.data));
      outcome.shapes.push_back(output.shape.ToString());
    }
    return outcome;
  }

  std::list<std::string> messages_;
};

}  // namespace penstock
