#include "backends/tensorrt/nvinfer_runtime.h"

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <utility>

#include "backends/tensorrt/library_errors.h"
#include "backends/tensorrt/library_search.h"
#include "backends/tensorrt/version.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/strcat.h"

namespace penstock::tensorrt {
namespace {

using nvinfer1::Dims;
using nvinfer1::OptProfileSelector;

// The library's words: to the log, and errors for who asks (FirstLogged). What is reported to a
// Recorder need not come here, and what happens before there is one does.
// Threading: thread-safe.
// Lifecycle: one, to the end of the process: the library keeps the first logger that it is given.
class Words final : public nvinfer1::ILogger {
 public:
  static Words& Get() {
    static auto& words = *new Words;
    return words;
  }

  void log(Severity severity, nvinfer1::AsciiChar const* text) noexcept override {
    if (severity >= Severity::kINFO) return;
    try {
      const bool is_error = severity != Severity::kWARNING;
      Log(is_error ? LogLevel::kError : LogLevel::kWarning, "tensorrt", text);
      if (is_error) FirstLogged::Add(text);
    } catch (...) {
      // No memory for the line, and the library's frames take no exception.
    }
  }
};

// The errors of one object of the library's, also those that happen on its own threads.
// Threading: thread-safe.
// Ownership: outlives the object.
class Recorder final : public nvinfer1::IErrorRecorder {
 public:
  // The Status of a call that failed: LibraryErrors::Take.
  Status Fail(std::string_view what, StatusCode code = StatusCode::kInternal) {
    return errors_.Take(code, what, FirstLogged::Take());
  }
  // Before a call of an object that one thread uses at a time: so that it fails in its own words.
  void Begin() {
    if (errors_.size() > 0) errors_.Clear();
    FirstLogged::Forget();
  }

  int32_t getNbErrors() const noexcept override { return static_cast<int32_t>(errors_.size()); }
  nvinfer1::ErrorCode getErrorCode(int32_t index) const noexcept override {
    try {
      const auto error = errors_.At(static_cast<size_t>(index));
      if (error) return static_cast<nvinfer1::ErrorCode>(error->code);
    } catch (...) {
      // No memory for a copy of it, and the library's frames take no exception.
    }
    return nvinfer1::ErrorCode::kUNSPECIFIED_ERROR;
  }
  ErrorDesc getErrorDesc(int32_t index) const noexcept override {
    thread_local std::string asked;  // stays when the error goes
    try {
      const auto error = errors_.At(static_cast<size_t>(index));
      asked = error ? error->words : "";
      return asked.c_str();
    } catch (...) {
      return "";  // likewise
    }
  }
  bool hasOverflowed() const noexcept override { return errors_.has_overflowed(); }
  void clear() noexcept override { errors_.Clear(); }
  bool reportError(nvinfer1::ErrorCode code, ErrorDesc words) noexcept override {
    try {
      Log(LogLevel::kError, "tensorrt", words);
      errors_.Add({.code = static_cast<int>(code),
                   .is_of_memory = code == nvinfer1::ErrorCode::kFAILED_ALLOCATION,
                   .words = words});
    } catch (...) {
      // As with the log's lines.
    }
    return true;  // the call that it happens in does not go on
  }
  RefCount incRefCount() noexcept override { return ++references_; }
  RefCount decRefCount() noexcept override { return --references_; }

 private:
  LibraryErrors errors_;
  std::atomic<RefCount> references_{0};
};

Dims ToDims(const Shape& shape) {
  Dims dims{};
  dims.nbDims = static_cast<int32_t>(std::min<size_t>(shape.rank(), Dims::MAX_DIMS));
  std::copy_n(shape.begin(), dims.nbDims, dims.d);
  return dims;
}

Shape ToShape(const Dims& dims) {
  Shape shape;
  for (int32_t i = 0; i < dims.nbDims; ++i) shape.Append(dims.d[i]);
  return shape;
}

struct TypeName {
  DataType dtype;
  const char* name;
};

TypeName ToType(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
      return {DataType::kFp32, "FLOAT"};
    case nvinfer1::DataType::kHALF:
      return {DataType::kFp16, "HALF"};
    case nvinfer1::DataType::kINT8:
      return {DataType::kInt8, "INT8"};
    case nvinfer1::DataType::kINT32:
      return {DataType::kInt32, "INT32"};
    case nvinfer1::DataType::kBOOL:
      return {DataType::kBool, "BOOL"};
    case nvinfer1::DataType::kUINT8:
      return {DataType::kUint8, "UINT8"};
    case nvinfer1::DataType::kBF16:
      return {DataType::kBf16, "BF16"};
    case nvinfer1::DataType::kINT64:
      return {DataType::kInt64, "INT64"};
    case nvinfer1::DataType::kFP8:
      return {DataType::kInvalid, "FP8"};
    case nvinfer1::DataType::kINT4:
      return {DataType::kInvalid, "INT4"};
    default:
      return {DataType::kInvalid, "of a later version"};
  }
}

class NvinferContext final : public PlanContext {
 public:
  NvinferContext(std::unique_ptr<nvinfer1::IExecutionContext> context,
                 const std::vector<PlanTensor>& tensors)
      : context_(std::move(context)), tensors_(tensors) {
    context_->setErrorRecorder(&errors_);
  }

  Status SetAddress(size_t tensor, void* data) override {
    errors_.Begin();
    return Check(context_->setTensorAddress(NameOf(tensor), data), tensor, "is given its memory");
  }
  Status SetInputShape(size_t tensor, const Shape& shape) override {
    if (tensors_[tensor].dims.empty()) return Status::Ok();  // a scalar has no shape to be set
    errors_.Begin();
    return Check(context_->setInputShape(NameOf(tensor), ToDims(shape)), tensor,
                 StrCat("is given shape ", shape.ToString()));
  }
  Result<Shape> OutputShape(size_t tensor) override {
    errors_.Begin();
    const Dims dims = context_->getTensorShape(NameOf(tensor));
    PENSTOCK_RETURN_IF_ERROR(Check(dims.nbDims >= 0, tensor, "is asked for its shape"));
    return ToShape(dims);
  }
  Status Enqueue(gpu::Stream stream) override {
    errors_.Begin();
    if (context_->enqueueV3(reinterpret_cast<cudaStream_t>(stream))) return Status::Ok();
    return errors_.Fail("TensorRT does not enqueue");
  }

 private:
  const char* NameOf(size_t tensor) const { return tensors_[tensor].name.c_str(); }
  Status Check(bool is_done, size_t tensor, const std::string& what) {
    if (is_done) return Status::Ok();
    return errors_.Fail(StrCat("'", tensors_[tensor].name, "' ", what));
  }

  Recorder errors_;  // goes after the context
  const std::unique_ptr<nvinfer1::IExecutionContext> context_;
  const std::vector<PlanTensor>& tensors_;
};

class NvinferPlan final : public Plan {
 public:
  explicit NvinferPlan(std::unique_ptr<nvinfer1::ICudaEngine> engine) : engine_(std::move(engine)) {
    engine_->setErrorRecorder(&errors_);
    for (int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
      tensors_.push_back(Describe(engine_->getIOTensorName(i)));
    }
  }

  const std::vector<PlanTensor>& tensors() const override { return tensors_; }
  size_t profiles() const override {
    return static_cast<size_t>(std::max(1, engine_->getNbOptimizationProfiles()));
  }
  size_t ContextBytes(size_t profile) const override {
    const int64_t bytes = engine_->getDeviceMemorySizeForProfileV2(static_cast<int32_t>(profile));
    return static_cast<size_t>(std::max<int64_t>(bytes, 0));
  }
  Result<std::unique_ptr<PlanContext>> CreateContext(size_t profile, const ContextMemory& memory,
                                                     gpu::Stream stream) override;

 private:
  PlanTensor Describe(const char* name) const;
  bool IsLinear(const char* name) const;

  Recorder errors_;  // goes after the engine
  const std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::vector<PlanTensor> tensors_;  // constant after construction
};

// Each profile has a layout of its own for it.
bool NvinferPlan::IsLinear(const char* name) const {
  bool is_linear = true;
  for (int32_t p = 0; p < static_cast<int32_t>(profiles()); ++p) {
    is_linear = is_linear && engine_->getTensorFormat(name, p) == nvinfer1::TensorFormat::kLINEAR;
  }
  return is_linear;
}

PlanTensor NvinferPlan::Describe(const char* name) const {
  const TypeName type = ToType(engine_->getTensorDataType(name));
  PlanTensor tensor;
  tensor.name = name;
  tensor.dtype = type.dtype;
  tensor.dtype_name = type.name;
  tensor.is_input = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
  tensor.dims = ToShape(engine_->getTensorShape(name));
  tensor.is_read_by_host = engine_->isShapeInferenceIO(name) ||
                           engine_->getTensorLocation(name) == nvinfer1::TensorLocation::kHOST;
  tensor.is_linear = IsLinear(name);
#if NV_TENSORRT_VERSION >= 101500  // older headers have no word for it
  const char* aliased = engine_->getAliasedInputTensor(name);
  tensor.aliased_input = aliased == nullptr ? "" : aliased;
#endif
  for (int32_t p = 0; tensor.is_input && p < engine_->getNbOptimizationProfiles(); ++p) {
    const auto of = [&](OptProfileSelector which) {
      return ToShape(engine_->getProfileShape(name, p, which));
    };
    tensor.profiles.push_back(
        {of(OptProfileSelector::kMIN), of(OptProfileSelector::kOPT), of(OptProfileSelector::kMAX)});
  }
  return tensor;
}

Result<std::unique_ptr<PlanContext>> NvinferPlan::CreateContext(size_t profile,
                                                                const ContextMemory& memory,
                                                                gpu::Stream stream) {
  errors_.Begin();
  std::unique_ptr<nvinfer1::IExecutionContext> context(
      engine_->createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
  if (context == nullptr) {
    return errors_.Fail("TensorRT makes no context");
  }
  // Several contexts may have one profile at a time: kPROFILE_SHARING_0806 is always on since 10.0.
  const auto number = static_cast<int32_t>(profile);
  if (engine_->getNbOptimizationProfiles() > 0 &&
      !context->setOptimizationProfileAsync(number, reinterpret_cast<cudaStream_t>(stream))) {
    return errors_.Fail(StrCat("TensorRT does not take profile ", profile));
  }
  if (memory.data != nullptr) {
    context->setDeviceMemoryV2(memory.data, static_cast<int64_t>(memory.size_bytes));
  }
  return std::unique_ptr<PlanContext>(
      std::make_unique<NvinferContext>(std::move(context), tensors_));
}

class NvinferRuntime final : public PlanRuntime {
 public:
  // `library`: the version of it that runs here, and where it is from.
  NvinferRuntime(std::unique_ptr<nvinfer1::IRuntime> runtime, const Version& version,
                 std::string library)
      : runtime_(std::move(runtime)),
        description_(StrCat("TensorRT ", version.Text())),
        library_(std::move(library)) {
    runtime_->setErrorRecorder(&errors_);
  }

  std::string_view description() const override { return description_; }
  Result<std::unique_ptr<Plan>> Read(std::span<const uint8_t> bytes,
                                     bool allows_host_code) override {
    MutexLock lock(mu_);
    errors_.Begin();
    runtime_->setEngineHostCodeAllowed(allows_host_code);
    std::unique_ptr<nvinfer1::ICudaEngine> engine(
        runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
    if (engine == nullptr) {
      return WithLibrary(errors_.Fail(StrCat(description_, " does not take the plan"),
                                      StatusCode::kInvalidArgument),
                         library_);
    }
    return std::unique_ptr<Plan>(std::make_unique<NvinferPlan>(std::move(engine)));
  }

 private:
  Mutex mu_;         // one plan is read at a time
  Recorder errors_;  // goes after the runtime
  const std::unique_ptr<nvinfer1::IRuntime> runtime_;
  const std::string description_, library_;
};

// Asked again where it is to be used: what the probe opened was another process's.
Result<Version> AskVersion(void* library) {
  Version version;
  const std::array<std::pair<const char*, int*>, 4> parts = {{
      {"getInferLibMajorVersion", &version.major},
      {"getInferLibMinorVersion", &version.minor},
      {"getInferLibPatchVersion", &version.patch},
      {"getInferLibBuildVersion", &version.build},
  }};
  for (const auto& [name, value] : parts) {
    auto* ask = reinterpret_cast<int (*)()>(dlsym(library, name));
    if (ask == nullptr)
      return FailedPrecondition("the library is no TensorRT of version 10 or later");
    *value = ask();
  }
  const HeaderVersion headers{NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR};
  if (!headers.Drives(version)) return FailedPrecondition(WhyRefused(version, {&headers, 1}));
  return version;
}

// Where CUDA does not start, the library logs why and answers a pointer that is not null and that any
// call crashes with, the destructor's too: it is left alone.
Result<std::unique_ptr<nvinfer1::IRuntime>> StartRuntime(void* library) {
  auto* create =
      reinterpret_cast<void* (*)(void*, int32_t)>(dlsym(library, "createInferRuntime_INTERNAL"));
  if (create == nullptr) return FailedPrecondition("its library makes no runtime");
  FirstLogged::Forget();
  void* runtime = create(&Words::Get(), NV_TENSORRT_VERSION);
  const std::string logged = FirstLogged::Take();
  if (runtime == nullptr || !logged.empty()) {
    return LibraryErrors().Take(StatusCode::kFailedPrecondition, "its runtime does not start",
                                logged);
  }
  return std::unique_ptr<nvinfer1::IRuntime>(static_cast<nvinfer1::IRuntime*>(runtime));
}

// The full library's plug-ins register themselves, the lean one's are the registry's to load.
bool RegisterFrom(const std::string& plugins, void* opened, void* library, bool is_lean) {
  if (is_lean) {
    auto* registry =
        reinterpret_cast<nvinfer1::IPluginRegistry* (*)()>(dlsym(library, "getPluginRegistry"));
    return registry != nullptr && registry()->loadLibrary(plugins.c_str()) != nullptr;
  }
  auto* start =
      reinterpret_cast<bool (*)(void*, const char*)>(dlsym(opened, "initLibNvInferPlugins"));
  return start != nullptr && start(&Words::Get(), "");
}

// Plans with NMS, ROIAlign and others that are no layers are read where their plug-ins are known.
void RegisterPlugins(const std::string& path, void* library, int major) {
  const std::string plugins = PluginLibrary(path, major);
  void* opened = dlopen(plugins.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): per thread
    Log(LogLevel::kInfo, "tensorrt", StrCat("runs without TensorRT's plug-ins: ", dlerror()));
  } else if (!RegisterFrom(plugins, opened, library, IsLean(path))) {
    Log(LogLevel::kWarning, "tensorrt",
        "TensorRT's plug-ins are there, but do not register: plans that need them are refused");
  }
}

}  // namespace

Result<std::unique_ptr<PlanRuntime>> OpenNvinfer(const std::string& library,
                                                 const std::string& place) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    Log(LogLevel::kError, "tensorrt", dlerror());  // NOLINT(concurrency-mt-unsafe): per thread
    return FailedPrecondition("its library cannot be opened; the server's log says why");
  }
  PENSTOCK_ASSIGN_OR_RETURN(const Version version, AskVersion(handle));
  PENSTOCK_ASSIGN_OR_RETURN(auto runtime, StartRuntime(handle));
  static const bool has_registered = [&] {  // what is registered twice is an error
    RegisterPlugins(library, handle, version.major);
    return true;
  }();
  static_cast<void>(has_registered);
  const std::string found = StrCat(IsLean(library) ? "the lean runtime " : "", version.Text(),
                                   place.empty() ? "" : ", ", place);
  return std::unique_ptr<PlanRuntime>(
      std::make_unique<NvinferRuntime>(std::move(runtime), version, found));
}

}  // namespace penstock::tensorrt
