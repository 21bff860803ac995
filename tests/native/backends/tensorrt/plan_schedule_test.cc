// A thousand schedules, each of its own seed: a plan, its lanes, instances on threads, and a fault
// somewhere or none. Whatever comes, every batch is answered, and no answer is wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "plan_harness.h"
#include "testing/gpu_schedule_checks.h"
#include "testing/shm_object.h"

namespace penstock::tensorrt {
namespace {

FakePlanOptions PlanOf(GpuSchedule& schedule, bool has_open_width) {
  FakePlanOptions plan;
  plan.width = has_open_width ? -1 : 4;
  plan.profiles = {{1, 2, 8, 1, 8}};
  if (schedule.Pick(0, 1) == 0) plan.profiles.push_back({1, 1, 2, 1, 8});
  if (!has_open_width && schedule.Pick(0, 3) == 0) plan.profiles = {{3, 4, 8}};
  return plan;
}

ExportedMemory::Handle HandleOf(const ShmObject& object) {
  ExportedMemory::Handle handle{};
  const std::string name = object.IpcHandle();
  std::copy(name.begin(), name.end(), handle.begin());
  return handle;
}

// A client's memory: as this process has opened it on one of the devices, or by its handle alone,
// where that does not open as well.
std::shared_ptr<const ExportedMemory> MemoryOf(const ShmObject& object, FakeGpu& gpu,
                                               GpuSchedule& schedule) {
  const int device = schedule.Pick(0, 1);
  void* data = nullptr;
  size_t size_bytes = 0;
  if (schedule.Pick(0, 1) == 0 && gpu.SetDevice(device) == gpu::Error::kSuccess &&
      gpu.OpenIpcMemory(HandleOf(object), &data, &size_bytes) == gpu::Error::kSuccess) {
    return {new ExportedMemory(HandleOf(object), device, size_bytes, data),
            [&gpu, data](const ExportedMemory* memory) {
              delete memory;
              static_cast<void>(gpu.CloseIpcMemory(data));
            }};
  }
  return std::make_shared<ExportedMemory>(HandleOf(object), device, object.size(), nullptr);
}

// Runs a batch whose x lies in a client's memory from a row on, and whose y goes there, behind x.
Status RunParts(const RowBatch& batch, BackendInstance& instance, FakeGpu& gpu,
                GpuSchedule& schedule, std::vector<BatchOutput>* outputs) {
  std::vector<BatchInput> inputs = batch.Inputs();
  const auto x = inputs[0].tensor.data;
  ShmObject object(2 * x.size());
  object.Write({reinterpret_cast<const char*>(x.data()), x.size()});
  const auto memory = MemoryOf(object, gpu, schedule);
  if (!instance.Reaches(*memory)) return batch.Run(instance, outputs);
  const size_t row_bytes = x.size() / static_cast<size_t>(batch.rows);
  const size_t host_bytes =
      row_bytes * static_cast<size_t>(schedule.Pick(0, static_cast<int>(batch.rows)));
  inputs[0].tensor.data = {};
  const std::vector<InputPart> in = {{0, x.first(host_bytes), {}},
                                     {0, {}, {memory, host_bytes, x.size() - host_bytes}}};
  const bool is_read = schedule.Pick(0, 1) == 0;
  const std::vector<OutputPart> out = {
      {0, 0, static_cast<uint32_t>(batch.rows), is_read, {memory, x.size(), x.size()}}};
  PENSTOCK_RETURN_IF_ERROR(
      instance.ExecuteParts(inputs, std::vector<size_t>{0, 1}, {in, out}, outputs));
  const std::string y = object.Read(x.size(), x.size());
  if (is_read && std::memcmp(y.data(), (*outputs)[0].data.data(), y.size()) != 0) {
    return Status(StatusCode::kUnknown, "y is not the same on the host");
  }
  if ((*outputs)[0].data.size() == 0) (*outputs)[0].data = HostPool::Shared().Allocate(y.size());
  std::memcpy((*outputs)[0].data.data(), y.data(), y.size());
  return Status::Ok();
}

void RunSomeParts(BackendInstance& instance, FakeGpu& gpu, uint64_t seed, int open_width,
                  Tally& tally) {
  GpuSchedule schedule(seed);
  for (int i = schedule.Pick(2, 10); i > 0; --i) {
    const int width = open_width > 0 ? schedule.Pick(1, open_width) : 4;
    const RowBatch batch(schedule.Pick(0, 999), schedule.Pick(1, 8), width);
    std::vector<BatchOutput> outputs;
    const Status status = schedule.Pick(0, 2) == 0
                              ? batch.Run(instance, &outputs)
                              : RunParts(batch, instance, gpu, schedule, &outputs);
    if (status.ok()) {
      ++(batch.IsRight(outputs) ? tally.right : tally.wrong);
    } else {
      ++(IsOfFault(status.code()) ? tally.failed : tally.odd);
    }
  }
}

void RunSchedule(uint64_t seed) {
  GpuSchedule schedule(seed);
  const GpuFault kind = PickFault(schedule);
  const bool has_open_width = schedule.Pick(0, 2) == 0;
  std::vector<OutputMemory> rooms(3);  // of the instances; they go last
  FakeBackend fake(PlanOf(schedule, has_open_width),
                   {.seed = seed, .max_yields = schedule.Pick(0, 6), .devices = 2});
  const auto inject = [&](int nth) {
    InjectFault(*fake.gpu, kind, nth, [&](int run) { fake.runtime->FailEnqueue(run); });
  };
  const bool at_load = schedule.Pick(0, 4) == 0;
  if (at_load) inject(schedule.Pick(1, 120));
  auto model = fake.Load({{"lanes", std::to_string(schedule.Pick(1, 3))},
                          {"cuda_graphs", std::to_string(schedule.Pick(0, 1))},
                          {"graph_batch_sizes", "4,8"}});
  ASSERT_TRUE(model.ok() || (at_load && kind != GpuFault::kNone)) << model.status().ToString();
  if (!model.ok()) return;
  if (!at_load) inject(schedule.Pick(1, 120));
  // Before they have any: each is registered or not, and has room or none.
  std::vector<std::shared_ptr<void>> pinned;
  for (OutputMemory& room : rooms) {
    if (schedule.Pick(0, 3) > 0) pinned.push_back(fake.backend->PinHostMemory(room.bytes));
    room.is_full = schedule.Pick(0, 4) == 0;
  }
  size_t instances = 0;
  Tally tally;
  RunInstances(
      **model, schedule, tally,
      [&](BackendInstance& instance, uint64_t sub) {
        RunSomeParts(instance, *fake.gpu, sub, has_open_width ? 8 : 0, tally);
      },
      [&] { return rooms[instances++].AsRoom(); });
  ExpectRight(tally, kind, *fake.gpu);
}

TEST(PlanScheduleTest, RandomSchedules_LoseNothingAndAnswerNothingWrong) {
  RunGpuSchedules(RunSchedule);
}

}  // namespace
}  // namespace penstock::tensorrt
