// What the parts of gpu_bench share: a device to measure, our kernels on it, and rows of the table to
// print. Nothing here needs CUDA: tests measure a fake GPU.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "gpu/device_engine.h"
#include "gpu/gpu_api.h"

namespace penstock::gpu {

// A row of 224 x 224 RGB, and as many as a batch of an image model has.
inline constexpr size_t kImageBytes = size_t{224} * 224 * 3;
inline constexpr uint32_t kImages = 32;

// Our kernels, enqueued on a stream of the Api's.
class Kernels {
 public:
  virtual ~Kernels() = default;
  // Row i of `to` = what `from[i]` points to, in pinned memory.
  virtual Error Gather(void* to, const void* const* from, uint32_t rows, size_t row_bytes,
                       Stream stream) = 0;
  // Images of kImageBytes to as many of fp16, plane by plane.
  virtual Error Normalise(void* to, const void* from, uint32_t images, Stream stream) = 0;
  virtual Error CastToFp16(void* to, const void* from, size_t count, Stream stream) = 0;
};

// Ends the program where something that is measured does not work: there are no figures then.
inline void Check(const Status& status, const char* what) {
  if (status.ok()) return;
  std::fprintf(stderr, "gpu_bench: %s: %s\n", what, status.ToString().c_str());
  std::exit(1);
}
inline void Check(Error error, const char* what) {
  if (error != Error::kSuccess)
    Check(Internal("error " + std::to_string(static_cast<int>(error))), what);
}
#define CHECK_SUCCESS(call) ::penstock::gpu::Check(call, #call)

// Seconds that `run` takes, `rounds` times after one that does not count.
inline std::vector<double> Seconds(int rounds, const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  run();
  std::vector<double> seconds;
  for (int i = 0; i < rounds; ++i) {
    const auto began = Clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - began).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

// One line of JSON: a figure with its spread.
inline void Print(const char* table, const std::string& what, const char* unit, double median,
                  double least, double greatest) {
  std::printf("{\"table\": \"%s\", \"what\": \"%s\", \"unit\": \"%s\", \"median\": %.6g, ", table,
              what.c_str(), unit, median);
  std::printf("\"least\": %.6g, \"greatest\": %.6g}\n", least, greatest);
  std::fflush(stdout);
}
// Of `amount` per run: a rate, which is greatest where the time is least.
inline void PrintRate(const char* table, const std::string& what, const char* unit, double amount,
                      const std::vector<double>& seconds) {
  Print(table, what, unit, amount / seconds[seconds.size() / 2], amount / seconds.back(),
        amount / seconds.front());
}
// Of `count` things per run: the time of one, in microseconds.
inline void PrintMicroseconds(const char* table, const std::string& what, double count,
                              const std::vector<double>& seconds) {
  Print(table, what, "us", 1e6 * seconds[seconds.size() / 2] / count, 1e6 * seconds.front() / count,
        1e6 * seconds.back() / count);
}

// Each measures what it does `rounds` times.
void MeasureCopies(Api& api, Kernels& kernels, int rounds);
void MeasureLaunches(Api& api, Kernels& kernels, int rounds);
// The engine's batches through lanes and in a bare loop, of each size up to its max_rows():
// `batches` in a round of single rows, fewer of larger ones.
void MeasureLanes(Api& api, DeviceEngine& engine, int rounds, int batches);

}  // namespace penstock::gpu
