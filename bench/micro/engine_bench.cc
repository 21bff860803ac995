// The engine in process: bytes of a ModelInferRequest in, bytes of a ModelInferResponse out, no
// transport.
//
// Run: make bench, or build/release/bench/micro/engine_bench with PENSTOCK_BENCH_DIGITS=<digits
// model.onnx>, PENSTOCK_BENCH_ORT=<folder of libonnxruntime>, PENSTOCK_BENCH_BACKENDS=<folder of
// the plug-ins>.
//
// Closed loops of one-row requests (64 FP32), `window` of them in flight. One thread submits, takes
// and encodes, as an event loop does; an instance thread runs the batches.
//   BM_Batcher   the batcher alone, on one thread: enqueue, form, finish, take
//   BM_Request   the whole path with a backend that costs nothing: what Penstock adds to a model
//   BM_Digits    the whole path on ONNX Runtime
// items_per_second = requests; CPU = of the whole process.

#include <benchmark/benchmark.h>
#include <poll.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "zero_model.h"

namespace penstock {
namespace {

constexpr uint32_t kMaxBatchSize = 64;

VersionSpec Spec() {
  VersionSpec spec;
  spec.model_name = "digits";
  spec.version = 1;
  spec.inputs = {{"X", DataType::kFp32, Shape{kFeatures}, std::nullopt, false, 0}};
  spec.outputs = {{"probabilities", DataType::kFp32, Shape{kClasses}, std::nullopt, {}, 0}};
  spec.max_batch_size = kMaxBatchSize;
  return spec;
}

void Abort(const Status& status) {
  std::fprintf(stderr, "engine_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

// `window` requests in flight against one engine; a Turn takes what is done and submits as many
// again.
class ClosedLoop {
 public:
  ClosedLoop(Engine& engine, size_t window) : engine_(engine), message_(RequestBytes()) {
    for (size_t i = 0; i < window; ++i) Submit();
  }
  ~ClosedLoop() {
    while (inflight_ > 0) inflight_ -= TakeAndEncode();
  }

  size_t Turn() {
    const size_t done = TakeAndEncode();
    for (size_t i = 0; i < done; ++i) Submit();
    inflight_ -= done;
    return done;
  }

 private:
  void Submit() {
    RequestRef request = InferRequestPool::Shared().Get();
    AsInfer(request).message = {reinterpret_cast<const uint8_t*>(message_.data()), message_.size()};
    AsInfer(request).completions = &completions_;
    engine_.Infer(request);
    ++inflight_;
  }

  size_t TakeAndEncode() {
    pollfd waiting{completions_.fd(), POLLIN, 0};
    poll(&waiting, 1, -1);
    completions_.Take(&taken_);
    for (const RequestRef& ref : taken_) {
      InferRequest& request = AsInfer(ref);
      if (!request.status.ok()) Abort(request.status);
      response_.resize(request.EncodedSize());
      request.EncodeTo(response_);
      engine_.Release(request);
    }
    const size_t done = taken_.size();
    taken_.clear();
    return done;
  }

  Engine& engine_;
  const std::string message_;
  CompletionQueue completions_;
  std::vector<RequestRef> taken_;
  std::vector<uint8_t> response_;
  size_t inflight_ = 0;
};

void RunClosedLoop(benchmark::State& state, Engine& engine, std::shared_ptr<BackendModel> model) {
  auto version = engine.CreateVersion(std::move(model), Spec());
  if (!version.ok()) Abort(version.status());
  engine.Start(*version);
  engine.SetServing("digits", {*version}, {});
  size_t requests = 0;
  {
    ClosedLoop loop(engine, static_cast<size_t>(state.range(0)));
    for (auto _ : state) requests += loop.Turn();
  }
  const VersionStatistics statistics = (*version)->statistics();
  state.SetItemsProcessed(static_cast<int64_t>(requests));
  state.counters["rows_per_batch"] = static_cast<double>(statistics.inference_count) /
                                     static_cast<double>(statistics.execution_count);
}

void BM_Request(benchmark::State& state) {
  Engine engine({});
  RunClosedLoop(state, engine, std::make_shared<ZeroModel>(/*runs_on_any_thread=*/false));
}

void BM_Digits(benchmark::State& state) {
  const char* model = std::getenv("PENSTOCK_BENCH_DIGITS");
  const char* library = std::getenv("PENSTOCK_BENCH_ORT");
  const char* backends = std::getenv("PENSTOCK_BENCH_BACKENDS");
  if (model == nullptr || library == nullptr || backends == nullptr) {
    state.SkipWithError(
        "set PENSTOCK_BENCH_DIGITS, PENSTOCK_BENCH_ORT and PENSTOCK_BENCH_BACKENDS");
    return;
  }
  Engine::Options options;
  options.backend_directories = {backends};
  Engine engine(options);
  engine.backends().SetOptions("onnxruntime", {{"library", library}});
  const std::string path(model);
  auto loaded =
      engine.LoadModel("onnxruntime", {"digits", 1, path, path.substr(0, path.rfind('/')), {}});
  if (!loaded.ok()) Abort(loaded.status());
  RunClosedLoop(state, engine, *loaded);
}

// A request with nothing behind it.
class BareRequest final : public Request {
 public:
  void Reset() { ResetForReuse(); }

 private:
  void OnDone(const Status&) noexcept override {}
  void Wake() noexcept override {}
  void Dispose() noexcept override {}
};

void BM_Batcher(benchmark::State& state) {
  const auto window = static_cast<size_t>(state.range(0));
  Batcher::Options options;
  options.policy.max_batch_size = kMaxBatchSize;
  Batcher batcher(options);
  std::vector<BareRequest> requests(window);
  std::vector<Status> outcomes(window);
  Batch batch;
  int64_t wait_until_ns = 0;
  for (auto _ : state) {
    for (BareRequest& request : requests) {
      request.Reset();
      if (!batcher.Enqueue(RequestRef(&request)).ok()) std::abort();
    }
    while (batcher.TryNextBatch(&batch, &wait_until_ns)) {
      batcher.Finish(&batch, std::span(outcomes).first(batch.requests.size()));
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * window));
}

BENCHMARK(BM_Batcher)->ArgName("window")->Arg(1)->Arg(64);
BENCHMARK(BM_Request)->ArgName("window")->Arg(1)->Arg(64)->UseRealTime()->MeasureProcessCPUTime();
BENCHMARK(BM_Digits)->ArgName("window")->Arg(1)->Arg(64)->UseRealTime()->MeasureProcessCPUTime();

}  // namespace
}  // namespace penstock

BENCHMARK_MAIN();
