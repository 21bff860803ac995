#include "backends/onnxruntime/cuda_libraries.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string_view>
#include <system_error>

#include "base/log.h"

namespace penstock::ort {
namespace {

namespace fs = std::filesystem;

// TensorRT's last: its plugins and its parser are linked with the first of them.
constexpr std::string_view kLibraries[] = {
    "libcudart.so",  "libnvJitLink.so",      "libcublasLt.so",    "libcublas.so",
    "libcufft.so",   "libcurand.so",         "libnvrtc.so",       "libcudnn.so",
    "libnvinfer.so", "libnvinfer_plugin.so", "libnvonnxparser.so"};

// "13" of "libcudart.so.13.0.48"; "" of "libcudart.so".
std::string MajorOf(const std::string& name, std::string_view stem) {
  if (name.size() == stem.size()) return "";
  const size_t begin = stem.size() + 1;
  return name.substr(begin, name.find('.', begin) - begin);
}

// By major version, the longest name of each: that of the file, where others are links to it.
std::map<std::string, std::string> FindIn(const std::string& directory, std::string_view stem) {
  std::map<std::string, std::string> found;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool is_it =
        name.starts_with(stem) && (name.size() == stem.size() || name[stem.size()] == '.');
    if (!is_it) continue;
    std::string& path = found[MajorOf(name, stem)];
    path = std::max(path, it->path().string());
  }
  return found;
}

}  // namespace

std::vector<std::string> LibrariesToOpen(const std::vector<std::string>& directories) {
  std::vector<std::string> paths;
  for (const std::string_view stem : kLibraries) {
    std::map<std::string, std::string> by_major;
    for (const std::string& directory : directories) by_major.merge(FindIn(directory, stem));
    if (by_major.size() > 1) by_major.erase("");  // a link to one of the others
    for (const auto& [major, path] : by_major) paths.push_back(path);
  }
  return paths;
}

void OpenCudaLibraries(const std::vector<std::string>& directories) {
  for (const std::string& path : LibrariesToOpen(directories)) {
    // Not for everybody: what of TensorRT is not of a version by its symbols would be whoever's came
    // first. A library that is open is found by its name all the same.
    if (dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) != nullptr) continue;
    // NOLINTNEXTLINE(concurrency-mt-unsafe): glibc keeps the text per thread
    Log(LogLevel::kWarning, "onnxruntime", dlerror());
  }
}

int ProviderCudaVersion(const std::string& library) {
  const fs::path provider = fs::path(library).parent_path() / "libonnxruntime_providers_cuda.so";
  void* handle = dlopen(provider.c_str(), RTLD_NOW | RTLD_NOLOAD);
  if (handle == nullptr) return 0;
  // Looked for in the provider and what it is linked with, of several versions that may be open.
  auto* get_version = reinterpret_cast<int (*)(int*)>(dlsym(handle, "cudaRuntimeGetVersion"));
  int version = 0;
  if (get_version != nullptr && get_version(&version) != 0) version = 0;
  dlclose(handle);  // it stays the engine's
  return version;
}

}  // namespace penstock::ort
