// GpuSettings: what of a model's configuration is for ONNX Runtime on a GPU. Pure.

#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backends/onnxruntime/session_ranges.h"
#include "base/status.h"

namespace penstock::ort {

// What of the engine computes on a GPU: its execution providers.
enum class Provider { kCuda, kTensorrt };

// The settings of TensorRT's provider that need the server's cache.
inline constexpr std::string_view kKeepEngines = "trt_engine_cache_enable";
inline constexpr std::string_view kKeepTimings = "trt_timing_cache_enable";

// As the engine lists it: "CUDAExecutionProvider".
std::string_view ProviderName(Provider provider);

struct ProviderSettings {
  Provider provider = Provider::kCuda;
  std::map<std::string, std::string> values;  // under the engine's names
};

struct GpuSettings {
  // In the order that they are offered a model's operators; CUDA is always there, and the last.
  std::vector<ProviderSettings> providers;
  // TensorRT's, in the server's cache: what it builds, and what it measures while it does.
  bool keeps_engines = false, keeps_timings = false;
  RangeSettings ranges;
  // Requests may: what else is in one does a row no harm.
  bool shares_batches = false;

  bool needs_cache() const { return keeps_engines || keeps_timings; }
};

// Whether a parameter is for GPUs only.
bool IsGpuParameter(std::string_view name);

// Reads `parameters`, as server/penstock/repository/serving.py writes them:
//
// | parameter               | what                                                              |
// |-------------------------|-------------------------------------------------------------------|
// | `device_kind`           | `gpu`; without it the model runs on the CPU                       |
// | `max_batch_size`        | the most rows                                                     |
// | `dynamic_batching`      | 1: requests may share a batch                                     |
// | `accelerators`          | gpu_execution_accelerator's names, in order, with commas          |
// | `cuda.NAME`, `tensorrt.NAME` | an accelerator's own parameters                              |
// | `shape:NAME`            | LEAST:LIKELY:GREATEST of an open input, as 1x8:4x8:8x8; or one    |
// | Triton's older ones     | `gpu_mem_limit` and others, as of accelerator `cuda`              |
//
// nullopt: not on a GPU. INVALID_ARGUMENT names the parameter, what was expected and what came, or
// why it is not the model's to say.
Result<std::optional<GpuSettings>> ReadGpuSettings(
    const std::map<std::string, std::string>& parameters);

}  // namespace penstock::ort
