// InputRanges: the shapes that a model's inputs may have on a GPU, where memory is laid out ahead of
// time. Pure.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "backends/onnxruntime/session_signature.h"
#include "backends/tensorrt/plan.h"
#include "base/status.h"

namespace penstock::ort {

struct RangeSettings {
  uint32_t max_rows = 0;  // of a batch; 0: what would be rows is a dimension like any other
  // How many dims the configuration lists of a tensor; as many as the model has are its shape in
  // full, and then no batch is formed: the first dimension goes from 1 to max_rows unless `ranges` says.
  std::map<std::string, size_t> listed_ranks = {};
  // How far open inputs go, by name; without rows where there are any.
  std::map<std::string, tensorrt::ProfileRange> ranges = {};
};

// By input of the signature: fixed dimensions as they are, rows from 1 on, what else is open as the
// settings say. `label` starts messages. INVALID_ARGUMENT where an input is open and nothing says how
// far, a range does not fit its input, or there is no such input.
Result<std::vector<tensorrt::ProfileRange>> InputRanges(const std::string& label,
                                                        const ModelSignature& signature,
                                                        const RangeSettings& settings);

}  // namespace penstock::ort
