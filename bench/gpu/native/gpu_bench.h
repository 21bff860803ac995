// What the parts of gpu_bench share: a device to measure, and rows of the table to print.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "gpu/gpu_api.h"

namespace penstock::gpu {

// A row of 224 x 224 RGB, and as many as a batch of an image model has.
inline constexpr size_t kImageBytes = size_t{224} * 224 * 3;
inline constexpr uint32_t kImages = 32;

inline void Check(Error error, const char* what) {
  if (error == Error::kSuccess) return;
  std::fprintf(stderr, "gpu_bench: %s: error %d\n", what, static_cast<int>(error));
  std::exit(1);
}
#define CHECK_SUCCESS(call) ::penstock::gpu::Check(call, #call)
#define CHECK_CUDA(call) ::penstock::gpu::Check(static_cast<::penstock::gpu::Error>(call), #call)

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

void MeasureCopies(Api& api);
void MeasureLaunches(Api& api);
void MeasureLanes(Api& api);

}  // namespace penstock::gpu
