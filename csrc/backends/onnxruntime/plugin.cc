// The plug-in's entry and its Backend.

#include <charconv>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <span>
#include <sstream>
#include <string>
#include <system_error>
#include <utility>

#include "backends/backend.h"
#include "backends/onnxruntime/gpu_backend.h"
#include "backends/onnxruntime/gpu_settings.h"
#include "backends/onnxruntime/model_file.h"
#include "backends/onnxruntime/ort_library.h"
#include "backends/onnxruntime/ort_model.h"
#include "backends/onnxruntime/settings.h"
#include "base/strcat.h"

namespace penstock::ort {
namespace {

constexpr int kMaxSharedThreads = 1024;

// Runs `step`; an exception of the standard library's, for want of memory above all, becomes a
// Status.
template <typename T>
Result<T> NoThrow(const std::string& what, const std::function<Result<T>()>& step) {
  try {
    return step();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(what + ": out of memory");
  } catch (const std::system_error& error) {  // its own text may hold a path
    return Internal(StrCat(what, ": ", error.code().message()));
  } catch (const std::exception& error) {
    return Internal(StrCat(what, ": ", error.what()));
  }
}

struct Options {
  OrtLibrary::Options library;
  GpuOptions gpu;
};

// Threading: thread-safe. Ownership: borrows the library, which is never destroyed.
class OrtBackend : public Backend {
 public:
  OrtBackend(const OrtLibrary& library, GpuOptions gpu)
      : library_(library),
        description_(StrCat("ONNX Runtime ", library.version())),
        gpu_(library, std::move(gpu)) {}

  std::string_view description() const override { return description_; }
  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options) override {
    return NoThrow<std::unique_ptr<BackendModel>>(ModelLabel(options) + " cannot be loaded",
                                                  [&] { return LoadWhereItRuns(options); });
  }
  std::shared_ptr<void> PinHostMemory(std::span<uint8_t> memory) override {
    return gpu_.PinHostMemory(memory);
  }

 private:
  Result<std::unique_ptr<BackendModel>> LoadWhereItRuns(const LoadOptions& options) {
    const auto with_label = [&](const Status& status) {
      return Status(status.code(), StrCat(ModelLabel(options), ": ", status.message()));
    };
    const auto settings = ParseSettings(options.parameters);
    if (!settings.ok()) return with_label(settings.status());
    const auto gpu = ReadGpuSettings(options.parameters);
    if (!gpu.ok()) return with_label(gpu.status());
    if (!gpu->has_value()) return OrtModel::Load(library_, options, *settings);
    return gpu_.Load(options, *settings, **gpu);
  }

  const OrtLibrary& library_;
  const std::string description_;
  GpuBackend gpu_;
};

Status ReadThreads(const std::string& value, int* threads) {
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), *threads);
  if (error == std::errc() && end == value.data() + value.size() && *threads >= 0 &&
      *threads <= kMaxSharedThreads) {
    return Status::Ok();
  }
  return InvalidArgument(
      StrCat("option 'shared_threads' of the onnxruntime backend: expected a number from 0 to ",
             kMaxSharedThreads, ", got '", value, "'"));
}

// "library": a file, or the directory that holds it. "shared_threads": of the pool that models
// without threads of their own share; 0 or absent = one for each CPU. "cuda_libraries": directories
// of CUDA's libraries, separated by ':'. "engine_cache": where engines of TensorRT are kept.
Result<Options> ReadOptions(const BackendOptions& options) {
  Options read;
  for (const auto& [name, value] : options) {
    if (name == "library") {
      read.library.library = value;
    } else if (name == "shared_threads") {
      PENSTOCK_RETURN_IF_ERROR(ReadThreads(value, &read.library.shared_threads));
    } else if (name == "engine_cache") {
      read.gpu.engine_cache = value;
    } else if (name == "cuda_libraries") {
      std::istringstream directories(value);
      for (std::string each; std::getline(directories, each, ':');) {
        if (!each.empty()) read.gpu.cuda_libraries.push_back(each);
      }
    } else {
      return InvalidArgument(StrCat("option '", name,
                                    "' is not known to the onnxruntime backend; known are library, "
                                    "shared_threads, cuda_libraries, engine_cache"));
    }
  }
  return read;
}

Result<std::unique_ptr<Backend>> Start(const BackendOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(Options read, ReadOptions(options));
  PENSTOCK_ASSIGN_OR_RETURN(const OrtLibrary* library, OrtLibrary::Open(read.library));
  return std::unique_ptr<Backend>(std::make_unique<OrtBackend>(*library, std::move(read.gpu)));
}

}  // namespace
}  // namespace penstock::ort

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_backend_v6(const penstock::BackendOptions& options) {
  return penstock::ort::NoThrow<std::unique_ptr<penstock::Backend>>(
      "the onnxruntime backend cannot start", [&] { return penstock::ort::Start(options); });
}
