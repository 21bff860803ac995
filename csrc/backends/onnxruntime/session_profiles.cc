#include "backends/onnxruntime/session_profiles.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "backends/onnxruntime/session_warm_up.h"
#include "base/leave_to_process.h"
#include "base/log.h"
#include "base/strcat.h"

namespace penstock::ort {
namespace {

namespace fs = std::filesystem;

using tensorrt::ProfileRange;

bool Says(const Status& status, std::string_view words) {
  return status.message().find(words) != std::string::npos;
}

// The provider's words for profiles that leave out an input of a part of the model.
bool WantsOtherProfiles(const Status& status) {
  return Says(status, "provide shape profiles for the TRT subgraph's input");
}

// Its words for an engine that it has kept and cannot read, while it opens, and for times.
bool CannotReadKept(const Status& status) {
  return Says(status, "could not deserialize engine from cache") ||
         Says(status, "could not create timing cache");
}

// Its words for an engine that it cannot read in the first run, and for one that cannot be built.
bool HasNoEngine(const Status& status) {
  return Says(status, "TensorRT EP Failed to Build Engine");
}

// Files, and whatever else is there.
std::vector<fs::path> WhatIsIn(const std::string& directory) {
  std::error_code error;
  std::vector<fs::path> found;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    found.push_back(it->path());
  }
  return found;
}

void Empty(const std::string& directory) {
  std::error_code error;
  for (const fs::path& each : WhatIsIn(directory)) fs::remove_all(each, error);
}

bool KeepsAnEngine(const std::string& directory) {
  const std::vector<fs::path> found = WhatIsIn(directory);
  return std::any_of(found.begin(), found.end(),
                     [](const fs::path& each) { return each.extension() == ".engine"; });
}

uintmax_t BytesIn(const std::string& directory) {
  uintmax_t total_bytes = 0;
  for (const fs::path& each : WhatIsIn(directory)) {
    std::error_code error;
    const uintmax_t size_bytes = fs::file_size(each, error);
    if (!error) total_bytes += size_bytes;
  }
  return total_bytes;
}

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

bool CanBeSaid(const TensorSpec& spec) {
  return spec.is_optional || spec.name.find_first_of(":,") == std::string::npos;
}

}  // namespace

bool HasOpenInput(const ModelSignature& signature) {
  return std::any_of(signature.inputs.begin(), signature.inputs.end(), [](const TensorSpec& spec) {
    return !spec.is_optional &&
           std::any_of(spec.dims.begin(), spec.dims.end(), [](int64_t dim) { return dim < 0; });
  });
}

ProfileOptions ProfileOptionsOf(const ModelSignature& signature,
                                const std::vector<ProfileRange>& ranges) {
  const auto& inputs = signature.inputs;
  if (!HasOpenInput(signature) || !std::all_of(inputs.begin(), inputs.end(), CanBeSaid)) return {};
  return {{"trt_profile_min_shapes", ProfileText(signature, ranges, &ProfileRange::least)},
          {"trt_profile_opt_shapes", ProfileText(signature, ranges, &ProfileRange::likely)},
          {"trt_profile_max_shapes", ProfileText(signature, ranges, &ProfileRange::greatest)}};
}

Status ProfiledSessions::LearnInputs(int device, gpu::Stream stream) {
  PENSTOCK_ASSIGN_OR_RETURN(const auto plain, open_one_(device, stream, nullptr));
  const ModelSignature& signature = plain->signature().signature;
  Inputs inputs;
  PENSTOCK_ASSIGN_OR_RETURN(inputs.ranges, InputRanges(options_.label, signature, options_.ranges));
  inputs.profiles = ProfileOptionsOf(signature, inputs.ranges);
  inputs.are_open = HasOpenInput(signature);
  inputs_ = std::move(inputs);
  return Status::Ok();
}

Result<std::unique_ptr<DeviceSession>> ProfiledSessions::OpenProfiled(int device,
                                                                      gpu::Stream stream) {
  auto opened = open_one_(device, stream, &inputs_->profiles);
  if (opened.ok() || inputs_->profiles.empty() || !WantsOtherProfiles(opened.status())) {
    return opened;
  }
  Log(LogLevel::kInfo, "onnxruntime",
      StrCat(
          options_.label,
          ": TensorRT's provider takes a part of the model, and what shapes that has is known to "
          "it alone: it is told of none, and builds for those that it is run with now: ",
          opened.status().message()));
  inputs_->profiles.clear();
  return open_one_(device, stream, &inputs_->profiles);
}

Result<std::unique_ptr<DeviceSession>> ProfiledSessions::OpenAndWarmUp(int device,
                                                                       gpu::Stream stream) {
  PENSTOCK_ASSIGN_OR_RETURN(auto session, OpenProfiled(device, stream));
  if (!inputs_->are_open || !inputs_->profiles.empty()) return session;
  const Status warmed = WarmUp(options_.label, device_, stream, *session, inputs_->ranges);
  if (warmed.ok()) return session;
  if (device_.health().is_faulted()) {
    LeaveToTheProcess(std::move(session));  // its destructor may block
    return warmed;
  }
  const bool is_told = warmed.code() == StatusCode::kResourceExhausted || CannotReadKept(warmed) ||
                       HasNoEngine(warmed);
  if (is_told) return warmed;
  Log(LogLevel::kWarning, "onnxruntime",
      StrCat(
          options_.label,
          ": it does not run on zeros, so that TensorRT's provider builds its engines within the "
          "first requests: ",
          warmed.message()));
  return session;
}

// The provider says the same where the device has no room for an engine, or is lost.
Status ProfiledSessions::CheckKept(const Status& opened) {
  Status seen = device_.health().CheckEngine(opened, StrCat("open ", options_.label));
  if (seen.code() == StatusCode::kUnavailable) return seen;
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  PENSTOCK_RETURN_IF_ERROR(device_.health().Check(
      device_.api().MemoryInfo(&free_bytes, &total_bytes), StrCat("open ", options_.label)));
  const uintmax_t kept_bytes = BytesIn(options_.engine_directory);
  if (kept_bytes <= free_bytes) return Status::Ok();
  return ResourceExhausted(StrCat(options_.label, ": the engines that are kept of it have ",
                                  kept_bytes, " bytes, and the device has ", free_bytes,
                                  " left: ", opened.message()));
}

Result<std::unique_ptr<DeviceSession>> ProfiledSessions::Open(int device, gpu::Stream stream) {
  if (!inputs_) PENSTOCK_RETURN_IF_ERROR(LearnInputs(device, stream));
  const std::string& directory = options_.engine_directory;
  const bool keeps_one = KeepsAnEngine(directory);  // from before: what is built now can be read
  auto opened = OpenAndWarmUp(device, stream);
  if (opened.ok() || directory.empty() || has_emptied_) return opened;
  const bool is_kept =
      CannotReadKept(opened.status()) || (keeps_one && HasNoEngine(opened.status()));
  if (!is_kept) return opened;
  PENSTOCK_RETURN_IF_ERROR(CheckKept(opened.status()));
  has_emptied_ = true;
  Log(LogLevel::kWarning, "onnxruntime",
      StrCat(options_.label,
             ": what TensorRT's provider has kept of the model cannot be read; it is removed, and "
             "built again: ",
             opened.status().message()));
  Empty(directory);
  return OpenAndWarmUp(device, stream);
}

}  // namespace penstock::ort
