// The groups of calls that access is given or limited by: Triton's, and one for batch jobs.

#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace penstock {

enum class CallGroup : uint8_t {
  kHealth,
  kMetadata,
  kInference,
  kSharedMemory,
  kModelConfig,
  kModelRepository,
  kStatistics,
  kTrace,
  kLogging,
  kJobs,
};

inline constexpr std::array<std::string_view, 10> kCallGroupNames = {
    "health",           "metadata",   "inference", "shared-memory", "model-config",
    "model-repository", "statistics", "trace",     "logging",       "jobs"};

// One bit per group.
using CallGroups = std::bitset<kCallGroupNames.size()>;

inline std::string_view CallGroupName(CallGroup group) {
  return kCallGroupNames[static_cast<size_t>(group)];
}

inline std::optional<CallGroup> CallGroupFrom(std::string_view name) {
  for (size_t i = 0; i < kCallGroupNames.size(); ++i) {
    if (kCallGroupNames[i] == name) return static_cast<CallGroup>(i);
  }
  return std::nullopt;
}

}  // namespace penstock
