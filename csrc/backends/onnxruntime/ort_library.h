// OrtLibrary: the engine, opened and started: its functions, its environment, its errors as ours.

#pragma once

#include <string>
#include <string_view>

#include "backends/onnxruntime/ort_api.h"
#include "base/status.h"

namespace penstock::ort {

// OrtLibrary::gpu_api.
Result<GpuApi> ReadGpuApi(const ApiBase& base);

// One per process, since the engine keeps one environment per process: a log sink and the thread
// pool that every model without a pool of its own shares.
//
// Threading: thread-safe, immutable after Open. Ownership: never destroyed, its library never
// closed.
class OrtLibrary {
 public:
  struct Options {
    // The shared object, or a directory that holds one `libonnxruntime.so*`; empty: the loader's
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
  Env* env() const { return env_; }
  Allocator* allocator() const { return allocator_; }
  const MemoryInfo* cpu_memory() const { return cpu_memory_; }
  int shared_threads() const { return shared_threads_; }

  // The engine's error as text, which is released; "" for null.
  std::string TakeMessage(ErrorStatus* error) const;
  // OK for null; else INTERNAL "<what>: <the engine's message>". Takes the error.
  Status ToStatus(ErrorStatus* error, std::string_view what) const;

 private:
  OrtLibrary(const ApiBase* base, Api api, std::string version)
      : base_(base), api_(api), version_(std::move(version)) {}
  static Result<OrtLibrary*> OpenOnce(const std::string& path, int shared_threads);
  Status Start(int shared_threads);

  // Constant after Open.
  const ApiBase* base_;
  Api api_;
  std::string version_;
  Env* env_ = nullptr;
  Allocator* allocator_ = nullptr;
  MemoryInfo* cpu_memory_ = nullptr;
  int shared_threads_ = 0;
};

}  // namespace penstock::ort
