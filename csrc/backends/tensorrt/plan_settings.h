// Settings of a model that runs as a plan, from ModelConfig.parameters.

#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace penstock::tensorrt {

// | parameter           | what                                                | default              |
// |---------------------|-----------------------------------------------------|----------------------|
// | `device`            | numbers or UUIDs, with commas: a copy on each       | instance_group.gpus, or 0 |
// | `lanes`             | streams of batches on a device, 1 to 4              | 2                    |
// | `cuda_graphs`       | 0: none                                             | 1                    |
// | `graph_batch_sizes` | numbers of rows, with commas                        | powers of two, and the profiles' |
// | `graph_memory_mb`   | what graphs may hold of a device's memory           | 1024                 |
// | `max_batch_size`    | the configuration's, from the server; 0: no dimension is rows | (not 0)    |
// | `listed_rank:NAME`  | how many dimensions the configuration lists of a tensor, from the server, where it has no `max_batch_size`: as many as the plan's own are its shape in full, and no dimension is rows | (none) |
struct PlanSettings {
  std::vector<std::string> devices = {"0"};
  size_t lanes = 2;
  std::vector<uint32_t> graph_rows = {};
  size_t graph_budget_bytes = size_t{1} << 30;
  bool batches = true;
  std::map<std::string, size_t> listed_ranks = {};
};

// Before the name of a tensor.
inline constexpr std::string_view kListedRank = "listed_rank:";

// `backend`: whose model it is, for messages. `settings`: the defaults. INVALID_ARGUMENT naming the
// parameter, what was expected and what came. Parameters of other names are the model owner's.
Result<PlanSettings> ReadPlanSettings(std::string_view backend,
                                      const std::map<std::string, std::string>& parameters,
                                      PlanSettings settings = {});

}  // namespace penstock::tensorrt
