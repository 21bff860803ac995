#include "backends/openvino/model_file.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>

#include "backends/onnxruntime/model_file.h"
#include "backends/openvino/checkpoint_index.h"
#include "backends/openvino/engine_error.h"
#include "base/strcat.h"

namespace penstock::openvino {
namespace {

namespace fs = std::filesystem;

struct Kind {
  std::string_view suffix;
  Format format;
  std::string_view weights;  // suffix of the file beside it; "" where there is none
};

constexpr std::array<Kind, 5> kKinds = {{{".xml", {"OpenVINO IR", "ir"}, ".bin"},
                                         {".onnx", {"ONNX", "onnx"}, ""},
                                         {".pb", {"TensorFlow", "tf"}, ""},
                                         {".tflite", {"TensorFlow Lite", "tflite"}, ""},
                                         {".pdmodel", {"Paddle", "paddle"}, ".pdiparams"}}};
constexpr Format kSavedModel = {"TensorFlow SavedModel", "tf"};
constexpr const char* kSavedModelFile = "saved_model.pb";
constexpr const char* kVariablesIndex = "variables/variables.index";

std::string FileLabel(const LoadOptions& options, const fs::path& path) {
  return StrCat(ModelLabel(options), ": file '", path.filename().string(), "'");
}

bool IsInside(const fs::path& path, const fs::path& directory) {
  const auto [end, rest] =
      std::mismatch(directory.begin(), directory.end(), path.begin(), path.end());
  return end == directory.end();
}

Status CheckRegular(const LoadOptions& options, const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error || !fs::exists(status)) {
    return NotFound(StrCat(FileLabel(options, path), " cannot be opened: ", error.message()));
  }
  if (!fs::is_regular_file(status)) {
    return InvalidArgument(FileLabel(options, path) + " is not a regular file");
  }
  return Status::Ok();
}

Status CheckNotEmpty(const LoadOptions& options, const fs::path& path) {
  PENSTOCK_RETURN_IF_ERROR(CheckRegular(options, path));
  std::error_code error;
  if (fs::file_size(path, error) == 0 || error) {
    return InvalidArgument(FileLabel(options, path) + " is empty");
  }
  return Status::Ok();
}

// A file that the engine opens because of the model's: it must lie in the model's directory or, as
// that file itself may be a link within the repository, where that file lies (`home`).
Status CheckCompanion(const LoadOptions& options, const fs::path& path, const fs::path& home) {
  PENSTOCK_RETURN_IF_ERROR(CheckRegular(options, path));
  std::error_code error;
  const fs::path resolved = fs::canonical(path, error);
  const fs::path allowed = fs::canonical(options.model_directory, error);
  const bool is_inside = IsInside(resolved, allowed) || (!home.empty() && IsInside(resolved, home));
  if (!error && is_inside) return Status::Ok();
  return InvalidArgument(
      StrCat(FileLabel(options, path), " leads out of the model's directory by a symbolic link"));
}

// A graph without variables has no such file; one with variables misses it when it is converted.
Status CheckVariables(const LoadOptions& options) {
  const fs::path path = fs::path(options.path) / kVariablesIndex;
  std::error_code error;
  if (!fs::exists(path, error)) return Status::Ok();
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) return InvalidArgument(FileLabel(options, path) + " cannot be read");
  Status checked = CheckCheckpointIndex(bytes);
  if (checked.ok()) return checked;
  return InvalidArgument(StrCat(FileLabel(options, path), " ", checked.message()));
}

// A directory holds graph, variables and assets: each of its files is checked.
Result<Format> InspectSavedModel(const LoadOptions& options) {
  PENSTOCK_RETURN_IF_ERROR(CheckNotEmpty(options, fs::path(options.path) / kSavedModelFile));
  std::error_code error;
  const fs::path home = fs::canonical(options.path, error);
  for (fs::recursive_directory_iterator entry(options.path, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->is_directory(error) && !entry->is_symlink(error)) continue;
    PENSTOCK_RETURN_IF_ERROR(CheckCompanion(options, entry->path(), home));
  }
  if (error) {
    return InvalidArgument(
        StrCat(FileLabel(options, options.path), " cannot be read: ", error.message()));
  }
  PENSTOCK_RETURN_IF_ERROR(CheckVariables(options));
  return kSavedModel;
}

Status UnknownFormat(const LoadOptions& options) {
  std::string known;
  for (const Kind& kind : kKinds) known += StrCat("*", kind.suffix, " (", kind.format.name, "), ");
  return InvalidArgument(StrCat(FileLabel(options, options.path),
                                " is of no format that the openvino backend reads; it reads ",
                                known, "and directories that hold ", kSavedModelFile, " (",
                                kSavedModel.name, ")"));
}

}  // namespace

Result<Format> InspectFiles(const LoadOptions& options) {
  const fs::path path(options.path);
  std::error_code error;
  if (fs::is_directory(path, error)) return InspectSavedModel(options);
  const auto* kind = std::find_if(kKinds.begin(), kKinds.end(), [&](const Kind& each) {
    return path.extension() == each.suffix;
  });
  if (kind == kKinds.end()) return UnknownFormat(options);
  PENSTOCK_RETURN_IF_ERROR(CheckNotEmpty(options, path));
  if (kind->suffix == ".onnx") {
    PENSTOCK_RETURN_IF_ERROR(ort::InspectModelFile(options).status());
  }
  fs::path weights(path);
  weights.replace_extension(kind->weights);
  // A model without weights needs no such file; one with weights misses it when it is converted.
  if (!kind->weights.empty() && fs::exists(fs::symlink_status(weights, error))) {
    const fs::path home = fs::canonical(path, error).parent_path();
    PENSTOCK_RETURN_IF_ERROR(CheckCompanion(options, weights, home));
  }
  return kind->format;
}

}  // namespace penstock::openvino
