// A plan on the fake GPU behind the backend's interface, and batches whose answers are known.

#pragma once

#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX's

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/tensorrt/plan_backend.h"
#include "backends/tensorrt/plan_model.h"
#include "base/log.h"
#include "testing/fake_gpu.h"
#include "testing/fake_plan.h"

namespace penstock::tensorrt {

struct QuietLog {
  QuietLog() { SetLogging({.info = false, .warning = false, .error = false}); }
  ~QuietLog() { SetLogging({}); }
};

// Its plan's file goes with it.
struct FakeBackend {
  explicit FakeBackend(const FakePlanOptions& plan = {}, const FakeGpuOptions& gpu_options = {},
                       bool allows_host_code = false) {
    auto api = std::make_unique<FakeGpu>(gpu_options);
    gpu = api.get();
    auto made = std::make_unique<FakePlanRuntime>(*gpu, plan);
    runtime = made.get();
    backend = std::make_unique<PlanBackend>(PlanBackendParts{std::move(api), std::move(made)},
                                            Clock::System(), allows_host_code);
    std::string name = (std::filesystem::temp_directory_path() / "plan-XXXXXX").string();
    directory = mkdtemp(name.data());
    Write(kFakePlanBytes);
  }
  ~FakeBackend() { std::filesystem::remove_all(directory); }
  FakeBackend(const FakeBackend&) = delete;
  FakeBackend& operator=(const FakeBackend&) = delete;

  void Write(const std::string& content) const {
    std::ofstream(directory / "model.plan", std::ios::binary) << content;
  }
  Result<std::unique_ptr<BackendModel>> Load(
      const std::map<std::string, std::string>& parameters = {}) {
    LoadOptions options;
    options.model_name = "m";
    options.version = 3;
    options.path = (directory / "model.plan").string();
    options.model_directory = directory.string();
    options.parameters = parameters;
    return backend->Load(options);
  }

  std::filesystem::path directory;
  FakeGpu* gpu;
  FakePlanRuntime* runtime;
  std::unique_ptr<PlanBackend> backend;
};

inline PlanModel& AsPlan(BackendModel& model) { return static_cast<PlanModel&>(model); }

// A batch unlike those of other ids, and whether its answer is right.
struct Batch {
  Batch(int id, int64_t rows, int64_t width)
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

}  // namespace penstock::tensorrt
