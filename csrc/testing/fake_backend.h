// FakeBackend: a backend whose models are a signature and a function, for tests of the engine.

#pragma once

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "base/mutex.h"

namespace penstock {

// Holds the threads that pass it until it is opened. Threading: thread-safe.
class Gate {
 public:
  void Pass() {
    MutexLock lock(mu_);
    ++arrived_;
    changed_.NotifyAll();
    while (!is_open_) changed_.Wait(mu_);
  }
  void Open() {
    MutexLock lock(mu_);
    is_open_ = true;
    changed_.NotifyAll();
  }
  // Waits until `count` threads have come to Pass.
  void AwaitArrived(int count) {
    MutexLock lock(mu_);
    while (arrived_ < count) changed_.Wait(mu_);
  }

 private:
  Mutex mu_;
  CondVar changed_;
  bool is_open_ GUARDED_BY(mu_) = false;
  int arrived_ GUARDED_BY(mu_) = 0;
};

// What a fake model is and does. `execute` runs on the instances' threads.
struct FakeModelSpec {
  using Execute =
      std::function<Status(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                           std::vector<BatchOutput>* outputs)>;
  ModelSignature signature;
  Execute execute;
  std::atomic<int>* live_models = nullptr;     // counts models that exist, when given
  std::atomic<int>* live_instances = nullptr;  // likewise, instances
  bool runs_on_any_thread = false;             // as BackendInstance's
  // Where it is set, the model answers requests one by one, and `execute` is not called.
  using Answer = std::function<Status(std::span<const BatchInput> inputs,
                                      std::span<const BatchRequest> requests)>;
  Answer answer = nullptr;
  // Where they are set, the model reaches that memory of clients, and runs batches with parts.
  using Reaches = std::function<bool(const ExportedMemory& memory)>;
  using ExecuteParts =
      std::function<Status(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                           const BatchParts& parts, std::vector<BatchOutput>* outputs)>;
  Reaches reaches = nullptr;
  ExecuteParts execute_parts = nullptr;
  std::string runs_on = "CPU";  // as BackendModel's, both
  std::function<std::vector<DeviceUse>()> device_use = nullptr;
};

// Threading: as BackendModel.
class FakeModel final : public BackendModel {
 public:
  explicit FakeModel(FakeModelSpec spec) : spec_(std::move(spec)) {
    if (spec_.live_models != nullptr) spec_.live_models->fetch_add(1);
  }
  ~FakeModel() override {
    if (spec_.live_models != nullptr) spec_.live_models->fetch_sub(1);
  }
  const ModelSignature& signature() const override { return spec_.signature; }
  std::string runs_on() const override { return spec_.runs_on; }
  std::vector<DeviceUse> device_use() const override {
    return spec_.device_use ? spec_.device_use() : BackendModel::device_use();
  }
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions&) override {
    return std::unique_ptr<BackendInstance>(std::make_unique<Instance>(spec_));
  }

 private:
  class Instance final : public BackendInstance {
   public:
    explicit Instance(const FakeModelSpec& spec) : spec_(spec) {
      if (spec_.live_instances != nullptr) spec_.live_instances->fetch_add(1);
    }
    ~Instance() override {
      if (spec_.live_instances != nullptr) spec_.live_instances->fetch_sub(1);
    }
    bool runs_on_any_thread() const override { return spec_.runs_on_any_thread; }
    Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                   std::vector<BatchOutput>* outputs) override {
      return spec_.execute(inputs, wanted, outputs);
    }
    bool Reaches(const ExportedMemory& memory) override {
      return spec_.reaches != nullptr && spec_.reaches(memory);
    }
    Status ExecuteParts(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                        const BatchParts& parts, std::vector<BatchOutput>* outputs) override {
      return spec_.execute_parts(inputs, wanted, parts, outputs);
    }
    bool answers_requests() const override { return spec_.answer != nullptr; }
    Status ExecuteRequests(std::span<const BatchInput> inputs,
                           std::span<const BatchRequest> requests) override {
      return spec_.answer(inputs, requests);
    }

   private:
    const FakeModelSpec spec_;
  };

  const FakeModelSpec spec_;
};

// Every Load gives a model of `spec`. Threading: as Backend.
class FakeBackend final : public Backend {
 public:
  explicit FakeBackend(FakeModelSpec spec) : spec_(std::move(spec)) {}
  std::string_view description() const override { return "Fake 1"; }
  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions&) override {
    return std::unique_ptr<BackendModel>(std::make_unique<FakeModel>(spec_));
  }

 private:
  const FakeModelSpec spec_;
};

// An output that holds a copy of `bytes`.
inline BatchOutput MakeOutput(size_t index, DataType dtype, Shape shape,
                              std::span<const uint8_t> bytes) {
  BatchOutput output{index, dtype, shape, HostPool::Shared().Allocate(bytes.size())};
  if (!bytes.empty()) std::memcpy(output.data.data(), bytes.data(), bytes.size());
  return output;
}

// A FakeModelSpec::Execute: output i is input i, for models with as many of one as of the other.
inline Status Echo(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                   std::vector<BatchOutput>* outputs) {
  for (const size_t index : wanted) {
    for (const BatchInput& input : inputs) {
      if (input.index != index) continue;
      const TensorView& tensor = input.tensor;
      outputs->push_back(MakeOutput(index, tensor.dtype, tensor.shape, tensor.data));
    }
  }
  return Status::Ok();
}

}  // namespace penstock
