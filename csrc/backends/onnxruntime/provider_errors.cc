#include "backends/onnxruntime/provider_errors.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "backends/onnxruntime/ort_library.h"
#include "base/strcat.h"

namespace penstock::ort {
namespace {

namespace fs = std::filesystem;

constexpr const char* kCudaProvider = "libonnxruntime_providers_cuda.so";
// The loader's words, behind the file's name.
constexpr std::string_view kNoFile = ": cannot open shared object file";
// Uninstalling one of the two packages takes files of the other's, so both go.
constexpr const char* kInstallAgain =
    "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu";

// "libcudart.so.13" of "... with error: libcudart.so.13: cannot open shared object file: ...".
std::string_view MissingFile(std::string_view message) {
  const size_t end = message.find(kNoFile);
  if (end == std::string_view::npos) return {};
  const size_t before = message.find_last_of(" \t\n'\"", end);
  const size_t begin = before == std::string_view::npos ? 0 : before + 1;
  return message.substr(begin, end - begin);
}

// 13 of "libcudart.so.13"; 0: none.
int MajorNumber(std::string_view file) {
  constexpr std::string_view kSuffix = ".so.";
  const size_t at = file.find(kSuffix);
  int major = 0;
  if (at != std::string_view::npos) {
    std::from_chars(file.data() + at + kSuffix.size(), file.data() + file.size(), major);
  }
  return major;
}

std::string HowToGetFile(std::string_view file) {
  if (file.starts_with("libnvinfer") || file.starts_with("libnvonnxparser")) {
    const int major = MajorNumber(file);
    if (major == 0) return "; TensorRT comes with its own packages";
    return StrCat("; TensorRT ", major, ": pip install 'tensorrt-cu13<", major + 1,
                  "', or tensorrt-cu12 with a package for CUDA 12");
  }
  if (file.starts_with("libonnxruntime")) return StrCat("; ", kInstallAgain);
  if (file.starts_with("libcu") || file.starts_with("libnv")) {
    return "; CUDA's libraries: pip install 'onnxruntime-gpu[cuda,cudnn]' nvidia-cublas, or CUDA's "
           "toolkit";
  }
  return "";
}

// Of CUDA that the provider needs; 0: not known. Of these the major version is CUDA's.
int NeededMajor(std::string_view missing_file, const CudaVersions& versions) {
  const bool is_cudas =
      missing_file.starts_with("libcudart.so.") || missing_file.starts_with("libcublas");
  return is_cudas ? MajorNumber(missing_file) : versions.provider / 1000;
}

}  // namespace

std::string WithoutDirectories(const std::string& message) {
  std::string kept;
  size_t begin = 0;
  while (begin < message.size()) {
    const size_t end = std::min(message.find_first_of(" \t\n'\"", begin), message.size() - 1) + 1;
    const std::string_view word(message.data() + begin, end - begin);
    const size_t slash = word.rfind('/');
    kept += slash == std::string_view::npos ? word : word.substr(slash + 1);
    begin = end;
  }
  return kept;
}

std::string ProviderFailure(const std::string& message, const CudaVersions& versions) {
  std::string text = WithoutDirectories(message);
  if (const size_t at = text.find("Failed to load library"); at != std::string::npos) {
    text.erase(0, at);
  }
  while (text.ends_with('\n')) text.pop_back();
  const std::string_view missing = MissingFile(text);
  const int needed = NeededMajor(missing, versions);
  const int major = versions.driver / 1000;
  const std::string driver =
      StrCat("; the driver has CUDA ", major, ".", versions.driver % 1000 / 10);
  if (major > 0 && needed > major) {
    return StrCat(text, driver, ", and ONNX Runtime's provider needs ", needed,
                  ": a newer driver, or a package for CUDA ", major);
  }
  if (!missing.empty()) return StrCat(text, HowToGetFile(missing));
  // Of what a driver lacks that is too old: its symbols, or CUDA's own words for it.
  const bool may_be_the_driver = text.find("undefined symbol: cu") != std::string::npos ||
                                 text.find("CUDA") != std::string::npos;
  return major > 0 && may_be_the_driver ? StrCat(text, driver) : text;
}

std::string HowToGetProviders(const std::string& library) {
  const fs::path file(library);
  std::error_code error;
  if (!file.has_parent_path() || !fs::exists(file.parent_path() / kCudaProvider, error)) {
    return "install the package onnxruntime-gpu in place of onnxruntime, or name its library by "
           "--backend-config onnxruntime,library=PATH";
  }
  std::string beside;
  for (const std::string& name : LibraryNames(file.parent_path().string())) {
    if (name != file.filename()) beside += StrCat(name, " and ");
  }
  return StrCat("onnxruntime lies where onnxruntime-gpu does (", file.filename().string(),
                " was opened, beside ", beside, kCudaProvider, "): ", kInstallAgain);
}

}  // namespace penstock::ort
