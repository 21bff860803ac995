#include "backends/onnxruntime/session_profiles.h"

#include <algorithm>

#include "base/strcat.h"

namespace penstock::ort {
namespace {

using tensorrt::ProfileRange;

// "x:1x8,ids:1x16": inputs' shapes as TensorRT's provider reads them. It takes none for an input of
// rank 0, not even an empty one, and needs none: nothing of it is open.
std::string ProfileText(const ModelSignature& signature, const std::vector<ProfileRange>& ranges,
                        Shape ProfileRange::*which) {
  std::string text;
  for (size_t i = 0; i < ranges.size(); ++i) {
    if (signature.inputs[i].is_optional || signature.inputs[i].dims.empty()) continue;
    text += StrCat(text.empty() ? "" : ",", signature.inputs[i].name, ":");
    const Shape& shape = ranges[i].*which;
    for (size_t axis = 0; axis < shape.rank(); ++axis) {
      text += StrCat(axis == 0 ? "" : "x", shape[axis]);
    }
  }
  return text;
}

bool IsOpen(const ModelSignature& signature) {
  return std::any_of(signature.inputs.begin(), signature.inputs.end(), [](const TensorSpec& spec) {
    return !spec.is_optional &&
           std::any_of(spec.dims.begin(), spec.dims.end(), [](int64_t dim) { return dim < 0; });
  });
}

}  // namespace

ProfileOptions ProfileOptionsOf(const ModelSignature& signature,
                                const std::vector<ProfileRange>& ranges) {
  if (!IsOpen(signature)) return {};
  return {{"trt_profile_min_shapes", ProfileText(signature, ranges, &ProfileRange::least)},
          {"trt_profile_opt_shapes", ProfileText(signature, ranges, &ProfileRange::likely)},
          {"trt_profile_max_shapes", ProfileText(signature, ranges, &ProfileRange::greatest)}};
}

Result<std::unique_ptr<DeviceSession>> ProfiledSessions::Open(int device, gpu::Stream stream) {
  if (!profiles_) {
    PENSTOCK_ASSIGN_OR_RETURN(const auto plain, open_one_(device, stream, nullptr));
    const ModelSignature& signature = plain->signature().signature;
    PENSTOCK_ASSIGN_OR_RETURN(const auto ranges, InputRanges(label_, signature, ranges_));
    profiles_ = ProfileOptionsOf(signature, ranges);
  }
  return open_one_(device, stream, &*profiles_);
}

}  // namespace penstock::ort
