// RowBatch: batches of the models that fakes compute, y = 2x + b + the row's number and n = the row's
// number, behind the backend's interface; and threads that run some of them.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "testing/gpu_schedule.h"

namespace penstock {

// A batch unlike those of other ids, and whether its answer is right.
struct RowBatch {
  RowBatch(int id, int64_t rows, int64_t width);

  static std::span<const uint8_t> Bytes(const std::vector<float>& values) {
    return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
  }
  std::vector<BatchInput> Inputs() const;
  Status Run(BackendInstance& instance, std::vector<BatchOutput>* outputs) const;
  bool IsRight(const std::vector<BatchOutput>& outputs) const;

  const int64_t rows, width;
  std::vector<float> x, b;
};

// What came of the batches of a schedule.
struct Tally {
  std::atomic<int> right{0}, wrong{0}, failed{0}, odd{0};  // odd: failed as no fault makes them
};

// What an instance's thread does: one batch after another. `open_width`: the greatest width of x;
// 0 = it is 4.
void RunSome(BackendInstance& instance, uint64_t seed, int open_width, Tally& tally);

// One to three instances of the model, each run on a thread of its own. `tally`: counts those that
// cannot be made. `make_room`: where an instance's outputs may lie.
void RunInstances(BackendModel& model, GpuSchedule& schedule, Tally& tally,
                  const std::function<void(BackendInstance& instance, uint64_t seed)>& run,
                  const std::function<OutputRoom()>& make_room = nullptr);

}  // namespace penstock
