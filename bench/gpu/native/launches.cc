// What the host pays: kernels one by one and as a graph, and a look at an event.

#include "gpu_bench.h"

namespace penstock::gpu {
namespace {

constexpr int kKernels = 20;
constexpr size_t kElements = 1024;

}  // namespace

void MeasureLaunches(Api& api, Kernels& kernels, int rounds) {
  Stream stream = nullptr;
  Event event = nullptr;
  void *from = nullptr, *to = nullptr;
  CHECK_SUCCESS(api.CreateStream(&stream));
  CHECK_SUCCESS(api.CreateEvent(&event));
  CHECK_SUCCESS(api.AllocateAsync(kElements * 4, stream, &from));
  CHECK_SUCCESS(api.AllocateAsync(kElements * 2, stream, &to));
  const auto enqueue = [&] {
    for (int i = 0; i < kKernels; ++i) {
      CHECK_SUCCESS(kernels.CastToFp16(to, from, kElements, stream));
    }
  };
  const auto wait = [&] { CHECK_SUCCESS(api.SynchronizeStream(stream)); };
  PrintMicroseconds("20 small kernels", "one by one, until all are over", 1,
                    Seconds(rounds, [&] { enqueue(), wait(); }));
  Graph graph = nullptr;
  GraphExec exec = nullptr;
  CHECK_SUCCESS(api.BeginCapture(stream));
  enqueue();
  CHECK_SUCCESS(api.EndCapture(stream, &graph));
  CHECK_SUCCESS(api.Instantiate(graph, &exec));
  PrintMicroseconds("20 small kernels", "a graph, until all are over", 1, Seconds(rounds, [&] {
                      CHECK_SUCCESS(api.LaunchGraph(exec, stream));
                      wait();
                    }));
  CHECK_SUCCESS(api.RecordEvent(event, stream));
  wait();
  constexpr int kQueries = 1000;
  PrintMicroseconds("event", "asked whether it is over", kQueries, Seconds(rounds, [&] {
                      for (int i = 0; i < kQueries; ++i) CHECK_SUCCESS(api.QueryEvent(event));
                    }));
  CHECK_SUCCESS(api.DestroyGraphExec(exec));
  CHECK_SUCCESS(api.DestroyGraph(graph));
  CHECK_SUCCESS(api.FreeAsync(from, stream));
  CHECK_SUCCESS(api.FreeAsync(to, stream));
  wait();
  CHECK_SUCCESS(api.DestroyEvent(event));
  CHECK_SUCCESS(api.DestroyStream(stream));
}

}  // namespace penstock::gpu
