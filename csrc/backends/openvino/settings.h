// Settings: a model's engine settings, read from ModelConfig.parameters under the names that
// Triton's openvino backend and OpenVINO itself use.

#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/status.h"
#include "tensor/shape.h"

namespace penstock::openvino {

enum class Precision { kFp32, kBf16, kFp16 };
enum class Hint { kLatency, kThroughput, kCumulativeThroughput };

struct Settings {
  // What FP32 operators compute in. The engine would choose BF16 by itself where the CPU has it;
  // here that is asked for.
  Precision precision = Precision::kFp32;
  Hint hint = Hint::kLatency;
  // Threads of one inference: nullopt = by the model's size (openvino_model.cc), 0 = all CPUs.
  std::optional<int> inference_threads;
  // RESHAPE_IO_LAYERS: input names, and the shapes they are given in the place of the file's.
  std::map<std::string, Shape> shapes;
  std::optional<int> streams;  // nullopt = by the hint; also kAutoStreams, kNumaStreams
};

// The server adds a parameter of this name and an input's ("RESHAPE_IO_LAYERS:image", "-1,3,8,8") for
// each input that a configuration with RESHAPE_IO_LAYERS lists.
inline constexpr std::string_view kReshape = "RESHAPE_IO_LAYERS";

inline constexpr int kAutoStreams = -1;
inline constexpr int kNumaStreams = -2;

// Reads `parameters`. A parameter that looks like one of the engine's but is not known here is
// refused by name, and so is one that would load code (CPU_EXTENSION_PATH) or another device.
// What is Triton's and has no effect here is held to its values all the same.
// Every other parameter is the model owner's own and left alone. INVALID_ARGUMENT names parameter
// and value, UNIMPLEMENTED what is not supported.
Result<Settings> ParseSettings(const std::map<std::string, std::string>& parameters);

}  // namespace penstock::openvino
