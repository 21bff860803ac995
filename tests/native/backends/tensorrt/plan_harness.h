// A plan on the fake GPU behind the backend's interface.

#pragma once

#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp is POSIX's

#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/tensorrt/plan_backend.h"
#include "backends/tensorrt/plan_model.h"
#include "testing/fake_gpu.h"
#include "testing/fake_plan.h"
#include "testing/quiet_log.h"
#include "testing/row_batch.h"

namespace penstock::tensorrt {

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

// Room for an instance's outputs, one batch after the other, as a device's worker has it in its slab.
// Lifecycle: goes after the fake GPU, which writes there for as long as it likes once it is lost.
struct OutputMemory {
  static constexpr size_t kBytes = 4096;

  OutputRoom AsRoom() {
    return [this](std::span<const size_t> sizes) {
      asked.assign(sizes.begin(), sizes.end());
      std::vector<std::span<uint8_t>> pieces;
      size_t at = 0;
      for (const size_t size : sizes) {
        pieces.push_back(std::span(bytes).subspan(at, size));
        at += (size + 63) / 64 * 64;
      }
      return is_full ? std::vector<std::span<uint8_t>>() : pieces;
    };
  }
  bool Holds(const Buffer& data) const {
    return data.data() >= bytes.data() && data.data() + data.size() <= bytes.data() + kBytes;
  }

  std::vector<uint8_t> bytes = std::vector<uint8_t>(kBytes);
  bool is_full = false;
  std::vector<size_t> asked;  // last
};

inline PlanModel& AsPlan(BackendModel& model) { return static_cast<PlanModel&>(model); }

}  // namespace penstock::tensorrt
