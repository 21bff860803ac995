// Plans in device workers whose batches lie in clients' memory on a fake GPU, for tests.

#pragma once

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device_harness.h"
#include "memory/exported_memory.h"
#include "testing/quiet_log.h"
#include "testing/row_batch.h"
#include "testing/shm_object.h"

namespace penstock {

inline constexpr int64_t kPlanWidth = 16;
inline constexpr size_t kPlanRowBytes = kPlanWidth * sizeof(float);

// What a client exports, as the server knows it.
struct ClientMemory {
  explicit ClientMemory(size_t size_bytes, int device = 0) : object(size_bytes) {
    ExportedMemory::Handle handle{};
    const std::string name = object.IpcHandle();
    std::copy(name.begin(), name.end(), handle.begin());
    memory = std::make_shared<ExportedMemory>(handle, device, size_bytes, nullptr);
  }

  void Put(std::span<const uint8_t> bytes, size_t offset = 0) {
    object.Write({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, offset);
  }
  std::vector<float> Floats(size_t count, size_t offset) const {
    const std::string bytes = object.Read(count * sizeof(float), offset);
    std::vector<float> floats(count);
    std::memcpy(floats.data(), bytes.data(), bytes.size());
    return floats;
  }
  // Whether a process has it open.
  bool IsOpenIn(pid_t pid) const { return MapsOf(pid).find(object.key()) != std::string::npos; }

  ShmObject object;
  std::shared_ptr<const ExportedMemory> memory;
};

// A worker whose device has the number that its memories say.
inline std::shared_ptr<DeviceWorker> WorkerOfGpu(int64_t number, DeviceWorkerOptions options) {
  options.number = number;
  return std::make_shared<DeviceWorker>(std::move(options));
}

inline LoadOptions PlanLoad(const ScratchDirectory& scratch, const std::string& name = "m") {
  LoadOptions options = FixtureLoad(name, {{"kind", "plan"},
                                           {"lanes", "1"},
                                           {"cuda_graphs", "0"},
                                           {"asked_file", scratch.File("asked")},
                                           {"reach_file", scratch.File("reach")},
                                           {"load_file", scratch.File("how")},
                                           {"file", scratch.File("go")}});
  options.path = scratch.Write("model.plan", "fake-plan");
  return options;
}

// How often instances were asked whether they reach a memory.
inline size_t Asked(const ScratchDirectory& scratch) {
  std::ifstream file(scratch.File("asked"));
  return static_cast<size_t>(std::count(std::istreambuf_iterator<char>(file), {}, '\n'));
}

inline pid_t PlanPid(BackendInstance& instance) {
  RowBatch batch(1, 1, kPlanWidth);
  batch.x[0] = -9;
  std::vector<BatchOutput> outputs;
  const std::string text(batch.Run(instance, &outputs).message());
  const size_t at = text.find("pid=");
  return at == std::string::npos ? 0 : static_cast<pid_t>(std::stol(text.substr(at + 4)));
}

// Runs a batch whose x lies in the memory from row `host_rows` on, at its begin, and whose y goes there,
// behind all of x; `is_read`: to the host, too. All of y is in `outputs` then, wherever it came from.
inline Status RunParts(BackendInstance& instance, const RowBatch& batch, ClientMemory* client,
                       int64_t host_rows, bool is_read, std::vector<BatchOutput>* outputs) {
  std::vector<BatchInput> inputs = batch.Inputs();
  const auto x = inputs[0].tensor.data;
  const size_t host_bytes = static_cast<size_t>(host_rows) * kPlanRowBytes;
  client->Put(x.subspan(host_bytes));
  Buffer gathered = instance.AllocateInput(std::max<size_t>(host_bytes, 1));
  std::memcpy(gathered.data(), x.data(), host_bytes);
  inputs[0].tensor.data = {};
  const std::vector<InputPart> in = {{0, std::as_const(gathered).span().first(host_bytes), {}},
                                     {0, {}, {client->memory, 0, x.size() - host_bytes}}};
  const std::vector<OutputPart> out = {
      {0, 0, static_cast<uint32_t>(batch.rows), is_read, {client->memory, x.size(), x.size()}}};
  outputs->clear();
  PENSTOCK_RETURN_IF_ERROR(
      instance.ExecuteParts(inputs, std::vector<size_t>{0, 1}, {in, out}, outputs));
  const std::string y = client->object.Read(x.size(), x.size());
  Buffer& read = (*outputs)[0].data;
  if (read.size() != (is_read ? x.size() : 0)) return Internal("y is there that nobody reads");
  if (!is_read) read = HostPool::Shared().Allocate(y.size());
  if (is_read && std::memcmp(y.data(), read.data(), y.size()) != 0) {
    return Internal("y is not the same on the host");
  }
  std::memcpy(read.data(), y.data(), y.size());
  return Status::Ok();
}

inline constexpr size_t kMemoryBytes = 16 * kPlanRowBytes;

// A plan in the worker of GPU 0, and an instance of it.
class DevicePartsTest : public testing::Test {
 protected:
  void Load(double execution_limit_s = 0, DeviceWorkerOptions options = WorkerOfTests()) {
    worker_ = WorkerOfGpu(0, std::move(options));
    model_ = MustLoadIn({worker_}, PlanLoad(scratch_), execution_limit_s);
    instance_ = MustMake(*model_);
  }
  Status Run(const RowBatch& batch, ClientMemory* client, int64_t host_rows = 0,
             bool is_read = false) {
    return RunParts(*instance_, batch, client, host_rows, is_read, &outputs_);
  }
  void KillAndAwaitAnother() {
    const uint64_t before = worker_->restarts();
    kill(PlanPid(*instance_), SIGKILL);
    AwaitThat([&] { return worker_->restarts() > before && instance_->is_available(); });
  }

  const QuietLog quiet_;
  const ScratchDirectory scratch_;
  std::shared_ptr<DeviceWorker> worker_;
  std::unique_ptr<DeviceModel> model_;
  std::unique_ptr<BackendInstance> instance_;
  std::vector<BatchOutput> outputs_;
};

}  // namespace penstock
