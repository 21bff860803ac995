#include "backends/onnxruntime/session_ranges.h"

#include <algorithm>

#include "base/strcat.h"

namespace penstock::ort {
namespace {

using tensorrt::ProfileRange;

// What the first dimension is where all that must be given or is answered has it open. Rows: of requests
// that may share a batch. In full: the configuration lists the shapes of a model that does not batch with
// it, and it goes as far as rows would. Else it is data.
enum class First { kRows, kInFull, kData };

First FirstOf(const ModelSignature& signature, const RangeSettings& settings) {
  const auto is_in_full = [&](const TensorSpec& spec) {
    const auto listed = settings.listed_ranks.find(spec.name);
    return listed != settings.listed_ranks.end() && listed->second == spec.dims.rank();
  };
  const auto is_open = [](const TensorSpec& spec) {
    return spec.is_optional || (!spec.dims.empty() && spec.dims[0] < 0);
  };
  const auto& inputs = signature.inputs;
  const auto& outputs = signature.outputs;
  const bool are_open = std::all_of(inputs.begin(), inputs.end(), is_open) &&
                        std::all_of(outputs.begin(), outputs.end(), is_open);
  if (settings.max_rows == 0 || !are_open) return First::kData;
  if (std::none_of(inputs.begin(), inputs.end(), is_in_full) &&
      std::none_of(outputs.begin(), outputs.end(), is_in_full)) {
    return First::kRows;
  }
  // One that is given says of all that it is data.
  return settings.ranges.empty() ? First::kInFull : First::kData;
}

bool Fits(const Shape& shape, const Shape& dims) {
  bool fits = shape.rank() == dims.rank();
  for (size_t i = 0; fits && i < dims.rank(); ++i) {
    fits = dims[i] < 0 ? shape[i] > 0 : dims[i] == shape[i];
  }
  return fits;
}

// Of as many rows as there may be.
ProfileRange WithRows(const ProfileRange& row, uint32_t most) {
  return {row.least.WithFirst(1), row.likely.WithFirst(most), row.greatest.WithFirst(most)};
}

Result<ProfileRange> RangeOf(const std::string& label, const TensorSpec& spec, First first,
                             const RangeSettings& settings) {
  const auto given = settings.ranges.find(spec.name);
  const bool is_given = given != settings.ranges.end();
  const bool has_rows = first != First::kData;
  const Shape rest = has_rows ? spec.dims.WithoutFirst() : spec.dims;
  const ProfileRange range = is_given ? given->second : ProfileRange{rest, rest, rest};
  for (const Shape* shape : {&range.least, &range.likely, &range.greatest}) {
    if (Fits(*shape, rest)) continue;
    const bool is_row = first == First::kRows;
    return InvalidArgument(StrCat(
        label, ": input '", spec.name, "' of shape ", spec.dims.ToString(),
        " is open, and memory on a GPU is laid out ahead of time: expected parameter 'shape:",
        spec.name, "', LEAST:LIKELY:GREATEST of ", is_row ? "a row's " : "",
        is_row ? rest.ToString() : spec.dims.ToString(), ", got ",
        is_given ? shape->ToString() : "none"));
  }
  return has_rows ? WithRows(range, settings.max_rows) : range;
}

}  // namespace

Result<std::vector<ProfileRange>> InputRanges(const std::string& label,
                                              const ModelSignature& signature,
                                              const RangeSettings& settings) {
  const First first = FirstOf(signature, settings);
  std::vector<ProfileRange> ranges;
  for (const TensorSpec& spec : signature.inputs) {
    if (spec.is_optional) {  // it keeps its default
      ranges.push_back({spec.dims, spec.dims, spec.dims});
      continue;
    }
    PENSTOCK_ASSIGN_OR_RETURN(ranges.emplace_back(), RangeOf(label, spec, first, settings));
  }
  for (const auto& entry : settings.ranges) {
    const bool is_known = std::any_of(
        signature.inputs.begin(), signature.inputs.end(),
        [&](const TensorSpec& spec) { return spec.name == entry.first && !spec.is_optional; });
    if (is_known) continue;
    return InvalidArgument(
        StrCat(label, ": parameter 'shape:", entry.first, "': the model has no such input"));
  }
  return ranges;
}

}  // namespace penstock::ort
