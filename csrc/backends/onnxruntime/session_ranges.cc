#include "backends/onnxruntime/session_ranges.h"

#include <algorithm>

#include "base/strcat.h"

namespace penstock::ort {
namespace {

using tensorrt::ProfileRange;

// Rows are the first dimension where all that must be given or is answered has it open, and nothing
// is listed in full.
bool HasRows(const ModelSignature& signature, const RangeSettings& settings) {
  const auto is_open = [&](const TensorSpec& spec) {
    const auto listed = settings.listed_ranks.find(spec.name);
    if (listed != settings.listed_ranks.end() && listed->second == spec.dims.rank()) return false;
    return spec.is_optional || (!spec.dims.empty() && spec.dims[0] < 0);
  };
  return settings.max_rows > 0 &&
         std::all_of(signature.inputs.begin(), signature.inputs.end(), is_open) &&
         std::all_of(signature.outputs.begin(), signature.outputs.end(), is_open);
}

bool Fits(const Shape& shape, const Shape& dims) {
  bool fits = shape.rank() == dims.rank();
  for (size_t i = 0; fits && i < dims.rank(); ++i) {
    fits = dims[i] < 0 ? shape[i] > 0 : dims[i] == shape[i];
  }
  return fits;
}

Result<ProfileRange> RangeOf(const std::string& label, const TensorSpec& spec, bool has_rows,
                             const RangeSettings& settings) {
  const Shape rest = has_rows ? spec.dims.WithoutFirst() : spec.dims;
  const auto given = settings.ranges.find(spec.name);
  ProfileRange range{rest, rest, rest};
  if (given != settings.ranges.end()) range = given->second;
  for (const Shape* shape : {&range.least, &range.likely, &range.greatest}) {
    if (Fits(*shape, rest)) continue;
    return InvalidArgument(StrCat(
        label, ": input '", spec.name, "' of shape ", spec.dims.ToString(),
        " is open, and memory on a GPU is laid out ahead of time: expected parameter 'shape:",
        spec.name, "', LEAST:LIKELY:GREATEST of ", has_rows ? "a row's " : "", rest.ToString(),
        ", got ", given == settings.ranges.end() ? "none" : shape->ToString()));
  }
  if (!has_rows) return range;
  return ProfileRange{range.least.WithFirst(1), range.likely.WithFirst(settings.max_rows),
                      range.greatest.WithFirst(settings.max_rows)};
}

}  // namespace

Result<std::vector<ProfileRange>> InputRanges(const std::string& label,
                                              const ModelSignature& signature,
                                              const RangeSettings& settings) {
  const bool has_rows = HasRows(signature, settings);
  std::vector<ProfileRange> ranges;
  for (const TensorSpec& spec : signature.inputs) {
    if (spec.is_optional) {  // it keeps its default
      ranges.push_back({spec.dims, spec.dims, spec.dims});
      continue;
    }
    PENSTOCK_ASSIGN_OR_RETURN(ranges.emplace_back(), RangeOf(label, spec, has_rows, settings));
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
