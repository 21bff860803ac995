// A backend alone: BackendInstance::Execute of one ONNX model, without queue, batcher or wire. What
// the server could reach at most, and what the default number of threads rests on.
//
// Run: build/release/bench/micro/backend_bench with PENSTOCK_BENCH_DIGITS=<model.onnx>,
// PENSTOCK_BENCH_ORT=<folder of libonnxruntime>, PENSTOCK_BENCH_BACKENDS=<folder of
// libpenstock_onnxruntime.so>. Any model will do whose inputs are not BYTES; the first dimension is
// the batch. PENSTOCK_BENCH_THREADS sets intra_op_thread_count (0 = the shared pool; unset = by
// size).

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/registry.h"
#include "memory/host_pool.h"

namespace penstock {
namespace {

[[noreturn]] void Stop(const Status& status) {
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  std::exit(1);
}

std::string Setting(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) {
    std::fprintf(stderr, "%s is not set; see the top of backend_bench.cc\n", name);
    std::exit(1);
  }
  return value;
}

// The model, loaded once for all benchmarks and never destroyed.
BackendModel& Model() {
  static auto& model = *[] {
    static auto& registry = *new BackendRegistry({Setting("PENSTOCK_BENCH_BACKENDS")});
    registry.SetOptions("onnxruntime", {{"library", Setting("PENSTOCK_BENCH_ORT")}});
    Result<Backend*> backend = registry.Get("onnxruntime");
    if (!backend.ok()) Stop(backend.status());
    const std::string path = Setting("PENSTOCK_BENCH_DIGITS");
    LoadOptions options{"bench", 1, path, path.substr(0, path.rfind('/')), {}};
    if (const char* threads = std::getenv("PENSTOCK_BENCH_THREADS")) {
      options.parameters["intra_op_thread_count"] = threads;
    }
    auto loaded = (*backend)->Load(options);
    if (!loaded.ok()) Stop(loaded.status());
    return std::move(loaded).value().release();
  }();
  return model;
}

// An input of the signature at a batch size: other variable dimensions are 1, every byte is 0x3f.
struct Input {
  Input(const TensorSpec& spec, int64_t rows) {
    view.name = spec.name;
    view.dtype = spec.dtype;
    for (size_t i = 0; i < spec.dims.rank(); ++i) {
      view.shape.Append(spec.dims[i] >= 0 ? spec.dims[i] : (i == 0 ? rows : 1));
    }
    const size_t size = static_cast<size_t>(*view.shape.NumElements()) * DataTypeSize(spec.dtype);
    data = HostPool::Shared().Allocate(size);
    std::fill_n(data.data(), size, uint8_t{0x3f});
    view.data = data.span();
  }
  Buffer data;
  TensorView view;
};

void BM_Execute(benchmark::State& state) {
  const ModelSignature& signature = Model().signature();
  const int64_t rows = state.range(0);
  std::vector<Input> memory;
  std::vector<BatchInput> inputs;
  for (const TensorSpec& spec : signature.inputs) {
    if (!spec.is_optional) memory.emplace_back(spec, rows);
  }
  for (size_t i = 0; i < memory.size(); ++i) inputs.push_back({i, memory[i].view});
  std::vector<size_t> wanted;
  for (size_t i = 0; i < signature.outputs.size(); ++i) wanted.push_back(i);
  auto instance = Model().CreateInstance({"bench_0"});
  if (!instance.ok()) Stop(instance.status());
  std::vector<BatchOutput> outputs;
  for (auto _ : state) {
    outputs.clear();
    const Status status = (*instance)->Execute(inputs, wanted, &outputs);
    if (!status.ok()) Stop(status);
    benchmark::DoNotOptimize(outputs.data());
  }
  state.SetItemsProcessed(state.iterations() * rows);
}

BENCHMARK(BM_Execute)->ArgName("batch")->Arg(1)->Arg(4)->Arg(16)->Arg(64)->UseRealTime();
// Two instances of one session, each on its own thread.
BENCHMARK(BM_Execute)->ArgName("batch")->Arg(1)->Arg(64)->Threads(2)->UseRealTime();

}  // namespace
}  // namespace penstock

BENCHMARK_MAIN();
