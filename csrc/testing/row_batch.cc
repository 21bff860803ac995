#include "testing/row_batch.h"

#include <cstring>
#include <memory>
#include <thread>
#include <utility>

namespace penstock {

RowBatch::RowBatch(int id, int64_t rows, int64_t width)
    : rows(rows),
      width(width),
      x(static_cast<size_t>(rows * width)),
      b(static_cast<size_t>(rows), static_cast<float>(id % 100)) {
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<float>(id % 1000) + static_cast<float>(i % 64);
  }
}

std::vector<BatchInput> RowBatch::Inputs() const {
  return {{0, {"x", DataType::kFp32, {rows, width}, Bytes(x)}},
          {1, {"b", DataType::kFp32, {rows, 1}, Bytes(b)}}};
}

Status RowBatch::Run(BackendInstance& instance, std::vector<BatchOutput>* outputs) const {
  const std::vector<size_t> wanted = {0, 1};
  outputs->clear();
  return instance.Execute(Inputs(), wanted, outputs);
}

bool RowBatch::IsRight(const std::vector<BatchOutput>& outputs) const {
  if (outputs.size() != 2 || outputs[0].shape != Shape{rows, width}) return false;
  if (outputs[1].shape != Shape{rows} || outputs[1].dtype != DataType::kUint32) return false;
  if (outputs[0].data.size() != x.size() * sizeof(float)) return false;
  // Row by row: an instrumented comparison of each value would be most of what a test costs.
  const auto columns = static_cast<size_t>(width);
  std::vector<float> expected(columns);
  for (size_t row = 0; row < b.size(); ++row) {
    const float* const begin = x.data() + row * columns;
    const float added = b[row] + static_cast<float>(row);
    for (size_t i = 0; i < columns; ++i) expected[i] = 2 * begin[i] + added;
    const size_t bytes = columns * sizeof(float);
    if (std::memcmp(outputs[0].data.data() + row * bytes, expected.data(), bytes) != 0)
      return false;
  }
  return true;
}

void RunSome(BackendInstance& instance, uint64_t seed, int open_width, Tally& tally) {
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

void RunInstances(BackendModel& model, GpuSchedule& schedule, Tally& tally,
                  const std::function<void(BackendInstance& instance, uint64_t seed)>& run,
                  const std::function<OutputRoom()>& make_room) {
  std::vector<std::unique_ptr<BackendInstance>> instances;
  std::vector<std::thread> threads;
  for (int i = schedule.Pick(1, 3); i > 0; --i) {
    InstanceOptions options;
    if (make_room != nullptr) options.output_room = make_room();
    auto instance = model.CreateInstance(options);
    if (!instance.ok()) ++tally.odd;
    if (!instance.ok()) break;
    instances.push_back(*std::move(instance));
    threads.emplace_back(
        [&run, on = instances.back().get(), seed = schedule.random()] { run(*on, seed); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace penstock
