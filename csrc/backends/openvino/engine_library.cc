#include "backends/openvino/engine_library.h"

#include <dlfcn.h>

#include <filesystem>
#include <string>
#include <system_error>

#include "base/log.h"
#include "base/strcat.h"

namespace penstock::openvino {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModule = "penstock_openvino_engine.so";

Status Missing(std::string_view why) {
  return FailedPrecondition(StrCat("OpenVINO ", PENSTOCK_OPENVINO_VERSION,
                                   ", which the openvino backend was built with, ", why,
                                   ": install the package openvino==", PENSTOCK_OPENVINO_VERSION,
                                   " (the extra 'openvino' of penstock)"));
}

Result<std::string> ReadLibrary(const BackendOptions& options) {
  std::string library;
  for (const auto& [name, value] : options) {
    if (name != "library") {
      return InvalidArgument(
          StrCat("option '", name, "' is not known to the openvino backend; known is library"));
    }
    library = value;
  }
  return library;
}

Result<std::string> Resolve(const std::string& library) {
  if (library.empty()) return std::string(PENSTOCK_OPENVINO_SONAME);
  std::error_code error;
  const fs::path path = fs::is_directory(library, error)
                            ? fs::path(library) / PENSTOCK_OPENVINO_SONAME
                            : fs::path(library);
  if (!fs::exists(path, error)) {
    return Missing(
        StrCat("is not where it is configured to be (no ", PENSTOCK_OPENVINO_SONAME, " there)"));
  }
  return path.string();
}

// Beside this module; in a program that has this code linked in, beside the program.
std::string ModulePath() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&StartEngine), &info) == 0) return kModule;
  return (fs::path(info.dli_fname).parent_path() / kModule).string();
}

// Its text holds paths: for the log, not for clients.
void LogLoaderError() {
  Log(LogLevel::kError, "openvino", dlerror());  // NOLINT(concurrency-mt-unsafe): per thread
}

}  // namespace

Result<std::unique_ptr<Backend>> StartEngine(const BackendOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::string library, ReadLibrary(options));
  PENSTOCK_ASSIGN_OR_RETURN(const std::string path, Resolve(library));
  // From here on the module's need for a library of this name is met, wherever it lies.
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL) == nullptr) {
    LogLoaderError();
    return Missing("cannot be opened; the server's log says why");
  }
  void* module = dlopen(ModulePath().c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    LogLoaderError();
    return FailedPrecondition(StrCat("the openvino backend's own ", kModule,
                                     " cannot be opened; the server's log says why"));
  }
  auto* entry = reinterpret_cast<BackendEntry>(dlsym(module, kEngineEntry));
  if (entry == nullptr) {
    return FailedPrecondition(
        StrCat(kModule, " has no entry '", kEngineEntry, "': it is of another build"));
  }
  return entry(options);
}

}  // namespace penstock::openvino
