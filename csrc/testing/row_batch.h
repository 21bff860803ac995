// RowBatch: batches of the models that fakes compute, y = 2x + b + the row's number and n = the row's
// number, behind the backend's interface; and threads that run some of them.

#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "backends/backend.h"
#include "testing/gpu_schedule.h"

namespace penstock {

// A batch unlike those of other ids, and whether its answer is right.
struct RowBatch {
  RowBatch(int id, int64_t rows, int64_t width)
      : rows(rows),
        width(width),
        x(static_cast<size_t>(rows * width)),
        b(static_cast<size_t>(rows)) {
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = static_cast<float>(id % 1000) + static_cast<float>(i % 64);
    for (size_t i = 0; i < b.size(); ++i) b[i] = static_cast<float>(id % 100);
  }

  static std::span<const uint8_t> Bytes(const std::vector<float>& values) {
    return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * sizeof(float)};
  }
  std::vector<BatchInput> Inputs() const {
    return {{0, {"x", DataType::kFp32, {rows, width}, Bytes(x)}},
            {1, {"b", DataType::kFp32, {rows, 1}, Bytes(b)}}};
  }
  Status Run(BackendInstance& instance, std::vector<BatchOutput>* outputs) const {
    const std::vector<size_t> wanted = {0, 1};
    outputs->clear();
    return instance.Execute(Inputs(), wanted, outputs);
  }
  bool IsRight(const std::vector<BatchOutput>& outputs) const {
    if (outputs.size() != 2 || outputs[0].shape != Shape{rows, width}) return false;
    if (outputs[1].shape != Shape{rows} || outputs[1].dtype != DataType::kUint32) return false;
    if (outputs[0].data.size() != x.size() * sizeof(float)) return false;
    for (size_t i = 0; i < x.size(); ++i) {
      const auto row = static_cast<float>(i / static_cast<size_t>(width));
      float y = 0;
      std::memcpy(&y, outputs[0].data.data() + i * sizeof(float), sizeof(y));
      if (y != 2 * x[i] + b[i / static_cast<size_t>(width)] + row) return false;
    }
    return true;
  }

  const int64_t rows, width;
  std::vector<float> x, b;
};

// What came of the batches of a schedule.
struct Tally {
  std::atomic<int> right{0}, wrong{0}, failed{0}, odd{0};  // odd: failed as no fault makes them
};

// What an instance's thread does: one batch after another. `open_width`: the greatest width of x;
// 0 = it is 4.
inline void RunSome(BackendInstance& instance, uint64_t seed, int open_width, Tally& tally) {
  GpuSchedule schedule(seed);
  for (int i = schedule.Pick(2, 10); i > 0; --i) {
    const int width = open_width > 0 ? schedule.Pick(1, open_width) : 4;
    const RowBatch batch(schedule.Pick(0, 999), schedule.Pick(1, 8), width);
    std::vector<BatchOutput> outputs;
    const Status status = batch.Run(instance, &outputs);
    if (status.ok()) {
      ++(batch.IsRight(outputs) ? tally.right : tally.wrong);
    } else {
      ++(IsOfFault(status.code()) ? tally.failed : tally.odd);
    }
  }
}

using RunBatches =
    std::function<void(BackendInstance& instance, uint64_t seed, int open_width, Tally& tally)>;

// One to three instances of the model, each on a thread of its own. `make_room`: where an instance's
// outputs may lie.
inline void RunInstances(BackendModel& model, GpuSchedule& schedule, int open_width, Tally& tally,
                         const RunBatches& run = &RunSome,
                         const std::function<OutputRoom()>& make_room = nullptr) {
  std::vector<std::unique_ptr<BackendInstance>> instances;
  std::vector<std::thread> threads;
  for (int i = schedule.Pick(1, 3); i > 0; --i) {
    InstanceOptions options;
    if (make_room != nullptr) options.output_room = make_room();
    auto instance = model.CreateInstance(options);
    if (!instance.ok()) ++tally.odd;
    if (!instance.ok()) break;
    instances.push_back(*std::move(instance));
    threads.emplace_back([&, on = instances.back().get(), sub = schedule.random()] {
      run(*on, sub, open_width, tally);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace penstock
