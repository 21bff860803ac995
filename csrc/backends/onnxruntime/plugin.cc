// The plug-in's entry and its Backend.

#include <charconv>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <system_error>

#include "backends/backend.h"
#include "backends/onnxruntime/model_file.h"
#include "backends/onnxruntime/ort_library.h"
#include "backends/onnxruntime/ort_model.h"
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

// Threading: thread-safe. Ownership: borrows the library, which is never destroyed.
class OrtBackend : public Backend {
 public:
  explicit OrtBackend(const OrtLibrary& library)
      : library_(library), description_(StrCat("ONNX Runtime ", library.version())) {}

  std::string_view description() const override { return description_; }
  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options) override {
    return NoThrow<std::unique_ptr<BackendModel>>(ModelLabel(options) + " cannot be loaded", [&] {
      return OrtModel::Load(library_, options);
    });
  }

 private:
  const OrtLibrary& library_;
  const std::string description_;
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
// without threads of their own share; 0 or absent = one for each CPU.
Result<OrtLibrary::Options> ReadOptions(const BackendOptions& options) {
  OrtLibrary::Options read;
  for (const auto& [name, value] : options) {
    if (name == "library") {
      read.library = value;
    } else if (name == "shared_threads") {
      PENSTOCK_RETURN_IF_ERROR(ReadThreads(value, &read.shared_threads));
    } else {
      return InvalidArgument(StrCat("option '", name,
                                    "' is not known to the onnxruntime backend; known are library, "
                                    "shared_threads"));
    }
  }
  return read;
}

Result<std::unique_ptr<Backend>> Start(const BackendOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(const OrtLibrary::Options read, ReadOptions(options));
  PENSTOCK_ASSIGN_OR_RETURN(const OrtLibrary* library, OrtLibrary::Open(read));
  return std::unique_ptr<Backend>(std::make_unique<OrtBackend>(*library));
}

}  // namespace
}  // namespace penstock::ort

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_backend_v3(const penstock::BackendOptions& options) {
  return penstock::ort::NoThrow<std::unique_ptr<penstock::Backend>>(
      "the onnxruntime backend cannot start", [&] { return penstock::ort::Start(options); });
}
