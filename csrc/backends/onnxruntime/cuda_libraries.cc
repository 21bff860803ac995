#include "backends/onnxruntime/cuda_libraries.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "base/log.h"

namespace penstock::ort {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLibraries[] = {"libcudart.so", "libnvJitLink.so", "libcublasLt.so",
                                      "libcublas.so", "libcufft.so",     "libcurand.so",
                                      "libnvrtc.so",  "libcudnn.so",     "libnvinfer.so"};

}  // namespace

std::string FindLibrary(const std::string& directory, const std::string& stem) {
  std::vector<std::string> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename().string();
    if (name == stem || name.starts_with(stem + ".")) found.push_back(entry.path().string());
  }
  return found.empty() ? "" : *std::max_element(found.begin(), found.end());
}

void OpenCudaLibraries(const std::vector<std::string>& directories) {
  for (const char* stem : kLibraries) {
    for (const std::string& directory : directories) {
      const std::string path = FindLibrary(directory, stem);
      if (path.empty()) continue;
      if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
        // NOLINTNEXTLINE(concurrency-mt-unsafe): glibc keeps the text per thread
        Log(LogLevel::kWarning, "onnxruntime", dlerror());
      }
      break;
    }
  }
}

}  // namespace penstock::ort
