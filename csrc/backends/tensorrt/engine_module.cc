#include "backends/tensorrt/engine_module.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <system_error>

#include "backends/tensorrt/preflight.h"
#include "backends/tensorrt/settings.h"
#include "base/log.h"
#include "base/strcat.h"

namespace penstock::tensorrt {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProbe = "penstock_tensorrt_probe";

// The directory of this module; in a program that has this code linked in, of the program.
fs::path ModuleDirectory() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&StartEngine), &info) == 0) return ".";
  return fs::path(info.dli_fname).parent_path();
}

Status Explain(const Status& why) {
  const bool is_lacking = why.code() == StatusCode::kFailedPrecondition;
  if (!is_lacking && why.code() != StatusCode::kUnavailable) return why;
  return Status(why.code(), StrCat("TensorRT cannot be used: ", why.message()));
}

// The highest minor that the library has.
std::optional<HeaderVersion> Choose(const std::vector<HeaderVersion>& adapters,
                                    const Version& version) {
  std::optional<HeaderVersion> best;
  for (const HeaderVersion& each : adapters) {
    if (each.Drives(version) && (!best || each.minor > best->minor)) best = each;
  }
  return best;
}

std::string FileName(const HeaderVersion& adapter) {
  return StrCat("penstock_tensorrt_engine_", adapter.major, "_", adapter.minor, ".so");
}

Result<std::unique_ptr<Backend>> OpenAdapter(const fs::path& path, const FoundLibrary& found,
                                             const SearchOptions& search) {
  void* module = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (module == nullptr) {
    Log(LogLevel::kError, "tensorrt", dlerror());  // NOLINT(concurrency-mt-unsafe): per thread
    return FailedPrecondition(StrCat("the backend's own ", path.filename().string(),
                                     " cannot be opened; the server's log says why"));
  }
  auto* entry = reinterpret_cast<BackendEntry>(dlsym(module, kEngineEntry));
  if (entry == nullptr) {
    return FailedPrecondition(StrCat(path.filename().string(), " has no entry '", kEngineEntry,
                                     "': it is of another build"));
  }
  return entry({{"library", found.path},
                {"place", PlaceOf(search, found.path)},
                {"host_code", search.allows_host_code ? "1" : "0"}});
}

Result<std::unique_ptr<Backend>> Start(const SearchOptions& search) {
  const fs::path directory = ModuleDirectory();
  const std::vector<HeaderVersion> adapters = FindAdapters(directory.string());
  PreflightOptions preflight;
  preflight.program = (directory / kProbe).string();
  PENSTOCK_ASSIGN_OR_RETURN(preflight.candidates, LibraryCandidates(search));
  preflight.accepted = adapters;
  if (adapters.empty()) {  // what is wrong with the machine comes first: it is wrong for any build
    for (const int major : kMajors) preflight.accepted.push_back({major, 0});
  }
  PENSTOCK_ASSIGN_OR_RETURN(const FoundLibrary found, RememberedPreflight(preflight));
  const std::optional<HeaderVersion> adapter = Choose(adapters, found.version);
  if (!adapter) {
    return FailedPrecondition(StrCat("TensorRT ", found.version.Text(),
                                     " was found, but this build of Penstock has no adapter: it "
                                     "was built without TensorRT's headers (TensorRT_ROOT)"));
  }
  return OpenAdapter(directory / FileName(*adapter), found, search);
}

}  // namespace

std::vector<HeaderVersion> FindAdapters(const std::string& directory) {
  std::vector<HeaderVersion> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    HeaderVersion version;
    const std::string name = entry.path().filename().string();
    if (std::sscanf(name.c_str(), "penstock_tensorrt_engine_%d_%d", &version.major,
                    &version.minor) == 2 &&
        name == FileName(version)) {
      found.push_back(version);
    }
  }
  std::sort(found.begin(), found.end(), [](const HeaderVersion& a, const HeaderVersion& b) {
    return std::pair(a.major, a.minor) > std::pair(b.major, b.minor);
  });
  return found;
}

Result<std::unique_ptr<Backend>> StartEngine(const BackendOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(const SearchOptions search, ReadSettings(options));
  Result<std::unique_ptr<Backend>> started = Start(search);
  if (!started.ok()) return Explain(started.status());
  return started;
}

}  // namespace penstock::tensorrt
