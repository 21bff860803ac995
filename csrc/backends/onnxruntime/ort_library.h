// OrtLibrary: the engine, opened and started: its functions, its environment, its errors as ours.

#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/onnxruntime/ort_api.h"
#include "base/status.h"

namespace penstock::ort {

// OrtLibrary::gpu_api.
Result<GpuApi> ReadGpuApi(const ApiBase& base);

// The names of the files libonnxruntime.so* in a directory, by version, the greatest last: 1.10 is
// later than 1.9. A file that has several, as an archive's has by links, is there by its longest.
std::vector<std::string> LibraryNames(const std::string& directory);

// One per process, since the engine keeps one environment per process: a log sink and the thread
// pool that every model without a pool of its own shares.
//
// Threading: thread-safe, immutable after Open. Ownership: never destroyed, its library never
// closed.
class OrtLibrary {
 public:
  struct Options {
    // The shared object, or a directory, of whose LibraryNames it is the last; empty: the loader's
    // search.
    std::string library;
    // Of the shared pool; 0 = one for each CPU of the machine, also where the process may use fewer: a
    // worker's pool is there before it binds itself to the CPUs near its device.
    int shared_threads = 0;
  };

  // Opens and starts the engine, once; a second call must ask for the same thing. A failure is not
  // remembered. FAILED_PRECONDITION where the library is missing, does not open or is too old.
  static Result<const OrtLibrary*> Open(const Options& options);

  const Api& api() const { return api_; }
  // FAILED_PRECONDITION where the engine is older than kGpuApiVersion.
  Result<GpuApi> gpu_api() const { return ReadGpuApi(*base_); }
  const std::string& version() const { return version_; }
  // Where it was opened, and looks for its providers.
  const std::string& file() const { return file_; }
  Env* env() const { return env_; }
  Allocator* allocator() const { return allocator_; }
  const MemoryInfo* cpu_memory() const { return cpu_memory_; }
  int shared_threads() const { return shared_threads_; }

  // The engine's error as text, which is released; "" for null.
  std::string TakeMessage(ErrorStatus* error) const;
  // OK for null; else INTERNAL "<what>: <the engine's message>". Takes the error.
  Status ToStatus(ErrorStatus* error, std::string_view what) const;

 private:
  OrtLibrary(const ApiBase* base, Api api, std::string file)
      : base_(base), api_(api), version_(base->GetVersionString()), file_(std::move(file)) {}
  static Result<OrtLibrary*> OpenOnce(const std::string& path, int shared_threads);
  Status Start(int shared_threads);

  // Constant after Open.
  const ApiBase* base_;
  Api api_;
  std::string version_;
  std::string file_;
  Env* env_ = nullptr;
  Allocator* allocator_ = nullptr;
  MemoryInfo* cpu_memory_ = nullptr;
  int shared_threads_ = 0;
};

}  // namespace penstock::ort
