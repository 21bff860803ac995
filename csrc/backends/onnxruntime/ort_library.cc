#include "backends/onnxruntime/ort_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <thread>

#include "base/log.h"
#include "base/mutex.h"
#include "base/strcat.h"

namespace penstock::ort {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLoaderName = "libonnxruntime.so.1";
constexpr std::string_view kStem = "libonnxruntime.so";

LogLevel ToLogLevel(LogSeverity severity) {
  switch (severity) {
    case LogSeverity::kVerbose:
      return LogLevel::kDebug;
    case LogSeverity::kInfo:
      return LogLevel::kInfo;
    case LogSeverity::kWarning:
      return LogLevel::kWarning;
    case LogSeverity::kError:
    case LogSeverity::kFatal:
      return LogLevel::kError;
  }
  return LogLevel::kError;
}

// Called by the engine on its threads. The log id is the model's name and version
// (SetSessionLogId).
// NOLINTNEXTLINE(readability-function-size): the engine's signature
void WriteLog(void* /*context*/, LogSeverity severity, const char* /*category*/, const char* log_id,
              const char* /*code_location*/, const char* message) {
  try {
    Log(ToLogLevel(severity), "onnxruntime", StrCat(log_id, ": ", message));
  } catch (const std::bad_alloc&) {
    // No memory for the line: there is none to say so either, and the engine's frames take no
    // exception.
  }
}

// {1, 32, 0} of "libonnxruntime.so.1.32.0", {} of "libonnxruntime.so", nothing of what is no library.
std::optional<std::vector<int>> VersionOf(std::string_view name) {
  if (!name.starts_with(kStem)) return std::nullopt;
  std::vector<int> version;
  const char* at = name.data() + kStem.size();
  const char* const end = name.data() + name.size();
  while (at != end) {
    int number = 0;
    if (*at != '.') return std::nullopt;
    const auto [rest, error] = std::from_chars(at + 1, end, number);
    if (error != std::errc()) return std::nullopt;
    version.push_back(number);
    at = rest;
  }
  return version;
}

// What is to be opened.
struct Chosen {
  std::string path;
  std::vector<std::string> names = {};  // of a directory's libraries, of which it is the last
};

Result<Chosen> FindIn(const fs::path& directory) {
  std::vector<std::string> names = LibraryNames(directory);
  if (names.empty()) {
    return FailedPrecondition(
        "ONNX Runtime: no libonnxruntime.so* in the directory configured for it");
  }
  std::string path = (directory / names.back()).string();
  return Chosen{std::move(path), std::move(names)};
}

// Of a directory with several, which the user may not know of.
void LogChoice(const std::string& directory, const std::vector<std::string>& names) {
  if (names.size() < 2) return;
  std::string all;
  for (const std::string& name : names) all += StrCat(all.empty() ? "" : ", ", name);
  Log(LogLevel::kWarning, "onnxruntime",
      StrCat("opened ", names.back(), ", the latest of those in ", directory, ": ", all));
}

Result<Chosen> Resolve(const std::string& library) {
  if (library.empty()) return Chosen{kLoaderName};
  std::error_code error;
  if (fs::is_directory(library, error)) return FindIn(library);
  if (!fs::exists(library, error)) {
    return FailedPrecondition("ONNX Runtime: the library configured for it does not exist");
  }
  return Chosen{library};
}

Status TooOld(const ApiBase& base, uint32_t version, std::string_view what_for) {
  return FailedPrecondition(StrCat("ONNX Runtime ", base.GetVersionString(),
                                   " does not offer version ", version, " of its C interface: 1.",
                                   version, " or later is needed", what_for));
}

struct OpenedBase {
  const ApiBase* base;
  Api api;
  std::string file;
};

Result<OpenedBase> OpenBase(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): glibc keeps the text per thread
    return FailedPrecondition(StrCat("ONNX Runtime cannot be opened: ", dlerror()));
  }
  auto* get_base = reinterpret_cast<const ApiBase* (*)()>(dlsym(handle, "OrtGetApiBase"));
  if (get_base == nullptr) {
    return FailedPrecondition("ONNX Runtime: the library configured for it has no OrtGetApiBase");
  }
  const ApiBase* base = get_base();
  Api::Table table = base->GetApi(kApiVersion);
  if (table == nullptr) return TooOld(*base, kApiVersion, "");
  Dl_info where{};  // of a name that the loader searched for, too
  const bool is_known = dladdr(reinterpret_cast<const void*>(get_base), &where) != 0;
  return OpenedBase{base, Api(table), is_known ? where.dli_fname : path};
}

}  // namespace

std::vector<std::string> LibraryNames(const std::string& directory) {
  std::map<std::vector<int>, fs::path> by_version;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const auto version = VersionOf(it->path().filename().string());
    if (version.has_value()) by_version[*version] = it->path();
  }
  std::vector<std::string> names;
  std::set<fs::path> files;
  for (auto it = by_version.rbegin(); it != by_version.rend(); ++it) {
    std::error_code missing;
    const fs::path file = fs::canonical(it->second, missing);
    if (!missing && files.insert(file).second) names.push_back(it->second.filename().string());
  }
  std::reverse(names.begin(), names.end());
  return names;
}

Result<GpuApi> ReadGpuApi(const ApiBase& base) {
  Api::Table table = base.GetApi(kGpuApiVersion);
  if (table == nullptr) return TooOld(base, kGpuApiVersion, " for KIND_GPU");
  return GpuApi(table);
}

Result<const OrtLibrary*> OrtLibrary::Open(const Options& options) {
  static Mutex mu;
  static OrtLibrary* opened = nullptr;
  static std::string opened_path;
  PENSTOCK_ASSIGN_OR_RETURN(const Chosen chosen, Resolve(options.library));
  const int cpus = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  const int threads = options.shared_threads > 0 ? options.shared_threads : cpus;
  MutexLock lock(mu);
  if (opened == nullptr) {
    PENSTOCK_ASSIGN_OR_RETURN(opened, OpenOnce(chosen.path, threads));
    opened_path = chosen.path;
    LogChoice(options.library, chosen.names);
  }
  if (opened_path != chosen.path || opened->shared_threads_ != threads) {
    return FailedPrecondition(StrCat("ONNX Runtime ", opened->version_,
                                     " already runs in this process with other settings"));
  }
  return opened;
}

Result<OrtLibrary*> OrtLibrary::OpenOnce(const std::string& path, int shared_threads) {
  PENSTOCK_ASSIGN_OR_RETURN(const auto opened, OpenBase(path));
  std::unique_ptr<OrtLibrary> library(new OrtLibrary(opened.base, opened.api, opened.file));
  PENSTOCK_RETURN_IF_ERROR(library->Start(shared_threads));
  return library.release();
}

Status OrtLibrary::Start(int shared_threads) {
  ThreadingOptions* raw = nullptr;
  PENSTOCK_RETURN_IF_ERROR(ToStatus(api_.CreateThreadingOptions(&raw), "ONNX Runtime threads"));
  const Owned<ThreadingOptions> threading(raw, api_.ReleaseThreadingOptions);
  // A number of our own also keeps the engine from pinning threads to cores. Spinning off: a thread
  // of the pool that waits must not take a core from the threads that parse, batch and answer.
  for (ErrorStatus* error :
       {api_.SetGlobalIntraOpNumThreads(raw, shared_threads),
        api_.SetGlobalInterOpNumThreads(raw, 1), api_.SetGlobalSpinControl(raw, 0)}) {
    PENSTOCK_RETURN_IF_ERROR(ToStatus(error, "ONNX Runtime threads"));
  }
  shared_threads_ = shared_threads;
  PENSTOCK_RETURN_IF_ERROR(
      ToStatus(api_.CreateEnvWithCustomLoggerAndGlobalThreadPools(
                   &WriteLog, nullptr, LogSeverity::kWarning, "onnxruntime", raw, &env_),
               "ONNX Runtime cannot start"));
  PENSTOCK_RETURN_IF_ERROR(
      ToStatus(api_.GetAllocatorWithDefaultOptions(&allocator_), "ONNX Runtime allocator"));
  return ToStatus(
      api_.CreateCpuMemoryInfo(AllocatorType::kDevice, MemoryType::kDefault, &cpu_memory_),
      "ONNX Runtime memory");
}

std::string OrtLibrary::TakeMessage(ErrorStatus* error) const {
  if (error == nullptr) return {};
  std::string message = api_.GetErrorMessage(error);
  api_.ReleaseStatus(error);
  // Where the engine was built is no part of what went wrong; the file's name stays.
  constexpr std::string_view kBuildRoot = "/onnxruntime_src/onnxruntime/";
  for (size_t at; (at = message.find(kBuildRoot)) != std::string::npos;) {
    message.erase(at, kBuildRoot.size());
  }
  return message;
}

Status OrtLibrary::ToStatus(ErrorStatus* error, std::string_view what) const {
  if (error == nullptr) return Status::Ok();
  return Internal(StrCat(what, ": ", TakeMessage(error)));
}

}  // namespace penstock::ort
