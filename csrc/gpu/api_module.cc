#include "gpu/api_module.h"

#include <dlfcn.h>
#include <unistd.h>

#include "base/log.h"
#include "base/strcat.h"

namespace penstock::gpu {
namespace {

Result<std::unique_ptr<Api>> OpenAt(const std::string& path) {
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    // It holds paths: for the log, not for clients.
    Log(LogLevel::kError, "gpu", dlerror());  // NOLINT(concurrency-mt-unsafe): per thread
    return Unavailable("this server's CUDA module cannot be opened; its log says why");
  }
  auto* entry = reinterpret_cast<ApiEntry>(dlsym(module, kApiEntry));
  if (entry == nullptr) {
    return Unavailable(StrCat("this server's CUDA module has no entry '", kApiEntry,
                              "': it was built for another version of Penstock"));
  }
  return entry();
}

}  // namespace

Result<std::unique_ptr<Api>> OpenApiModule(const std::vector<std::string>& directories) {
  for (auto each = directories.rbegin(); each != directories.rend(); ++each) {
    const std::string path = StrCat(*each, "/", kApiModule);
    if (access(path.c_str(), R_OK) == 0) return OpenAt(path);
  }
  return Unavailable("this server was built without CUDA's toolkit");
}

}  // namespace penstock::gpu
