// The hot path on one thread, to be counted in instructions: what a request costs in Penstock alone.
//
// Run: hot_path <turns>. Each turn hands over 16 one-row requests, runs them as one batch on this
// thread with a backend that costs nothing, takes the completions and encodes the answers, as an
// event loop does. bench/instructions.py runs it under callgrind.

#include <poll.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "zero_model.h"

namespace penstock {
namespace {

constexpr int kRequestsPerTurn = 16;
constexpr int kMostTries = 1000;
constexpr int kLeftThread = 3;  // exit status: count again

[[noreturn]] void Abort(const std::string& why) {
  std::fprintf(stderr, "hot_path: %s\n", why.c_str());
  std::exit(1);
}

std::shared_ptr<ModelVersion> Serve(Engine& engine) {
  VersionSpec spec;
  spec.model_name = "digits";
  spec.version = 1;
  spec.inputs = {{"X", DataType::kFp32, Shape{kFeatures}, std::nullopt, false, 0}};
  spec.outputs = {{"probabilities", DataType::kFp32, Shape{kClasses}, std::nullopt, {}, 0}};
  spec.max_batch_size = kRequestsPerTurn;
  auto version =
      engine.CreateVersion(std::make_shared<ZeroModel>(/*runs_on_any_thread=*/true), spec);
  if (!version.ok()) Abort(version.status().ToString());
  engine.Start(*version);
  engine.SetServing("digits", {*version}, {});
  return *version;
}

// False where an instance ran the batch.
bool Turn(Engine& engine, ModelVersion& version, const std::string& message,
          CompletionQueue& completions) {
  for (int i = 0; i < kRequestsPerTurn; ++i) {
    RequestRef request = InferRequestPool::Shared().Get();
    AsInfer(request).message = {reinterpret_cast<const uint8_t*>(message.data()), message.size()};
    AsInfer(request).completions = &completions;
    engine.Infer(request, {nullptr, Wake::kLater, false});
  }
  bool ran_here = false;
  {
    const CompletionQueue::Turn turn(completions);
    ran_here = version.TryRunHere();
  }
  if (!ran_here) version.Flush();
  std::vector<RequestRef> all;
  while (all.size() < kRequestsPerTurn) {
    pollfd waiting{completions.fd(), POLLIN, 0};
    if (!ran_here) poll(&waiting, 1, -1);
    std::vector<RequestRef> taken;
    completions.Take(&taken);
    ran_here = ran_here && taken.size() == kRequestsPerTurn;  // an instance may have had the rest
    all.insert(all.end(), taken.begin(), taken.end());
  }
  for (const RequestRef& ref : all) {
    InferRequest& request = AsInfer(ref);
    if (!request.status.ok()) Abort(request.status.ToString());
    std::vector<uint8_t> response(request.EncodedSize());
    request.EncodeTo(response);
    engine.Release(request);
  }
  return ran_here;
}

// A name for callgrind, which collects in here only. False once an instance ran a batch: then the
// machine was so busy that the model did not look quick any more.
__attribute__((noinline)) bool CountedTurns(int turns, Engine& engine, ModelVersion& version,
                                            const std::string& message,
                                            CompletionQueue& completions) {
  for (int i = 0; i < turns; ++i) {
    if (!Turn(engine, version, message, completions)) return false;
  }
  return true;
}

void Run(int turns) {
  Engine engine({});
  const auto version = Serve(engine);
  const std::string message = RequestBytes();
  CompletionQueue completions;
  // The engine learns that the model is quick from batches that an instance ran.
  int tries = 0;
  while (!Turn(engine, *version, message, completions)) {
    if (++tries == kMostTries) Abort("the model does not count as quick");
  }
  if (!CountedTurns(turns, engine, *version, message, completions)) std::exit(kLeftThread);
}

}  // namespace
}  // namespace penstock

int main(int argc, char** argv) {
  if (argc != 2 || std::atoi(argv[1]) < 1) {
    std::fprintf(stderr, "usage: hot_path <turns>\n");
    return 2;
  }
  penstock::Run(std::atoi(argv[1]));
}
