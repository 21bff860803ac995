#include "backends/tensorrt/library_search.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/strcat.h"

namespace penstock::tensorrt {
namespace {

namespace fs = std::filesystem;

// Below an archive's root: where it lies in archives of 11, and of 10.
constexpr const char* kLibraryFolders[] = {"lib", "lib64", "targets/x86_64-linux-gnu/lib"};

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const char* stem : {"libnvinfer.so.", "libnvinfer_lean.so."}) {
    for (const int major : kMajors) names.push_back(StrCat(stem, major));
  }
  return names;
}

void AddFrom(const fs::path& directory, std::vector<std::string>* candidates) {
  for (const std::string& name : Names()) {
    std::error_code error;
    if (fs::exists(directory / name, error)) candidates->push_back((directory / name).string());
  }
}

Result<std::vector<std::string>> Configured(const fs::path& library) {
  std::error_code error;
  if (!fs::exists(library, error)) {
    return FailedPrecondition("the library configured for it does not exist");
  }
  if (!fs::is_directory(library, error))
    return std::vector<std::string>{fs::absolute(library).string()};  // a bare name is searched for
  std::vector<std::string> found;
  AddFrom(library, &found);
  if (found.empty()) {
    return FailedPrecondition(
        "the directory configured for it holds neither libnvinfer.so.11 or .10 nor "
        "libnvinfer_lean.so.11 or .10");
  }
  return found;
}

}  // namespace

Result<std::vector<std::string>> LibraryCandidates(const SearchOptions& options) {
  if (!options.library.empty()) return Configured(options.library);
  std::vector<std::string> candidates;
  if (!options.root.empty()) {
    for (const char* folder : kLibraryFolders)
      AddFrom(fs::path(options.root) / folder, &candidates);
  }
  for (const std::string& directory : options.directories) AddFrom(directory, &candidates);
  for (std::string& name : Names()) candidates.push_back(std::move(name));
  return candidates;
}

bool IsLean(const std::string& candidate) {
  return fs::path(candidate).filename().string().find("_lean") != std::string::npos;
}

std::string PlaceOf(const SearchOptions& options, const std::string& candidate) {
  if (!options.library.empty()) return "the one configured";
  const fs::path path(candidate);
  if (!path.has_parent_path()) return "the one that the loader finds";
  const bool is_pips = std::any_of(
      options.directories.begin(), options.directories.end(),
      [&](const std::string& directory) { return fs::path(directory) / path.filename() == path; });
  return is_pips ? "the one of pip's packages" : "the one of $TensorRT_ROOT";
}

std::string PluginLibrary(const std::string& candidate, int major) {
  const char* stem = IsLean(candidate) ? "libnvinfer_vc_plugin.so." : "libnvinfer_plugin.so.";
  return (fs::path(candidate).parent_path() / StrCat(stem, major)).string();
}

}  // namespace penstock::tensorrt
