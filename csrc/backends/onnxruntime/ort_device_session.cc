#include "backends/onnxruntime/ort_device_session.h"

#include <algorithm>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/onnxruntime/cuda_libraries.h"
#include "backends/onnxruntime/provider_errors.h"
#include "backends/onnxruntime/run_turns.h"
#include "backends/onnxruntime/session_maker.h"
#include "backends/onnxruntime/signature.h"
#include "base/strcat.h"
#include "gpu/driver_api.h"

namespace penstock::ort {
namespace {

// What the engine calls a GPU's memory.
constexpr const char* kDeviceMemory = "Cuda";

// What the engine calls the host's memory.
constexpr std::string_view kHostMemory = "Cpu";

// What of a list of pairs the C interface wants.
struct KeyValues {
  explicit KeyValues(const std::map<std::string, std::string>& values) {
    for (const auto& [key, value] : values) {
      keys.push_back(key.c_str());
      texts.push_back(value.c_str());
    }
  }
  std::vector<const char*> keys, texts;
};

Result<std::vector<std::string>> AvailableProviders(const OrtLibrary& library) {
  const Api& api = library.api();
  char** names = nullptr;
  int count = 0;
  PENSTOCK_RETURN_IF_ERROR(library.ToStatus(api.GetAvailableProviders(&names, &count),
                                            "ONNX Runtime does not list its providers"));
  std::vector<std::string> found(names, names + count);
  PENSTOCK_RETURN_IF_ERROR(
      library.ToStatus(api.ReleaseAvailableProviders(names, count), "ONNX Runtime providers"));
  return found;
}

// What runs of a session are given, by how they end.
struct EndOptions {
  explicit EndOptions(const Api& api)
      : enqueued(nullptr, api.ReleaseRunOptions), over(nullptr, api.ReleaseRunOptions) {}
  const RunOptions* Of(RunEnd end) const {
    return end == RunEnd::kOver ? over.get() : enqueued.get();
  }

  Owned<RunOptions> enqueued, over;
};

// Threading: thread-compatible. Ownership: borrows the session, which outlives it.
class OrtBinding final : public SessionBinding {
 public:
  OrtBinding(const OrtLibrary& library, RunTurns& turns, const std::string& label,
             const SessionSignature& signature, Session* session, const EndOptions& run_options,
             const MemoryInfo* memory)
      : SessionBinding(turns),
        library_(library),
        api_(library.api()),
        label_(label),
        signature_(signature),
        session_(session),
        run_options_(run_options),
        memory_(memory),
        binding_(nullptr, api_.ReleaseIoBinding) {}

  Status Create() {
    IoBinding* raw = nullptr;
    PENSTOCK_RETURN_IF_ERROR(library_.ToStatus(api_.CreateIoBinding(session_, &raw), label_));
    binding_.reset(raw);
    return Status::Ok();
  }

  Status BindInput(size_t input, void* data, const Shape& shape) override {
    const MemoryInfo* memory = signature_.IsOnHost(input) ? library_.cpu_memory() : memory_;
    return Bind(signature_.signature.inputs[input], memory, data, shape, api_.BindInput);
  }
  Status BindOutput(size_t output, void* data, const Shape& shape) override {
    return Bind(signature_.signature.outputs[output], memory_, data, shape, api_.BindOutput);
  }

 private:
  Status RunOnce(RunEnd end) override;
  Status Bind(const TensorSpec& spec, const MemoryInfo* memory, void* data, const Shape& shape,
              decltype(Api::BindInput) bind);

  const OrtLibrary& library_;
  const Api& api_;
  const std::string& label_;
  const SessionSignature& signature_;
  Session* const session_;
  const EndOptions& run_options_;
  const MemoryInfo* const memory_;
  Owned<IoBinding> binding_;
};

// The binding keeps the value's tensor, which borrows the memory.
Status OrtBinding::Bind(const TensorSpec& spec, const MemoryInfo* memory, void* data,
                        const Shape& shape, decltype(Api::BindInput) bind) {
  const auto what = [&] { return StrCat(label_, ": '", spec.name, "'"); };
  const auto count = shape.NumElements();
  size_t size_bytes = 0;
  if (!count ||
      __builtin_mul_overflow(static_cast<size_t>(*count), DataTypeSize(spec.dtype), &size_bytes)) {
    return Internal(StrCat(what(), " of shape ", shape.ToString(), " is too large"));
  }
  Value* raw = nullptr;
  if (ErrorStatus* error = api_.CreateTensorWithDataAsOrtValue(
          memory, data, size_bytes, shape.begin(), shape.rank(), ToElementType(spec.dtype), &raw)) {
    return library_.ToStatus(error, what());
  }
  const Owned<Value> value(raw, api_.ReleaseValue);
  ErrorStatus* error = bind(binding_.get(), spec.name.c_str(), raw);
  return error == nullptr ? Status::Ok() : library_.ToStatus(error, what());
}

Status OrtBinding::RunOnce(RunEnd end) {
  ErrorStatus* error = api_.RunWithBinding(session_, run_options_.Of(end), binding_.get());
  if (error == nullptr) return Status::Ok();
  const std::string message = library_.TakeMessage(error);
  // The arena's words for having reached its limit, and the runtime's for having no memory left.
  const bool is_memory = message.find("Failed to allocate memory") != std::string::npos ||
                         message.find("Available memory of") != std::string::npos ||
                         message.find("out of memory") != std::string::npos;
  const std::string text = StrCat(label_, " failed to execute: ", message);
  return is_memory ? ResourceExhausted(text) : Internal(text);
}

// Threading: its bindings run one at a time.
class OrtDeviceSession final : public DeviceSession {
 public:
  OrtDeviceSession(const OrtLibrary& library, std::string label, std::shared_ptr<Session> session)
      : library_(library),
        label_(std::move(label)),
        session_(std::move(session)),
        run_options_(library.api()),
        memory_(nullptr, library.api().ReleaseMemoryInfo) {}

  Status Prepare(const ModelFileFacts& facts, int device);

  const SessionSignature& signature() const override { return signature_; }
  Result<std::unique_ptr<SessionBinding>> Bind() override {
    auto binding = std::make_unique<OrtBinding>(library_, turns(), label_, signature_,
                                                session_.get(), run_options_, memory_.get());
    PENSTOCK_RETURN_IF_ERROR(binding->Create());
    return std::unique_ptr<SessionBinding>(std::move(binding));
  }

 private:
  const OrtLibrary& library_;
  const std::string label_;
  const std::shared_ptr<Session> session_;
  EndOptions run_options_;
  Owned<MemoryInfo> memory_;
  SessionSignature signature_;
};

Status OrtDeviceSession::Prepare(const ModelFileFacts& facts, int device) {
  const Api& api = library_.api();
  PENSTOCK_ASSIGN_OR_RETURN(run_options_.enqueued,
                            MakeRunOptions(library_, api, RunEnd::kEnqueued, label_));
  PENSTOCK_ASSIGN_OR_RETURN(run_options_.over,
                            MakeRunOptions(library_, api, RunEnd::kOver, label_));
  MemoryInfo* memory = nullptr;
  PENSTOCK_RETURN_IF_ERROR(
      library_.ToStatus(api.CreateMemoryInfo(kDeviceMemory, AllocatorType::kDevice, device,
                                             MemoryType::kDefault, &memory),
                        label_));
  memory_.reset(memory);
  PENSTOCK_ASSIGN_OR_RETURN(signature_,
                            ReadSessionSignature(library_, session_.get(), facts, label_));
  PENSTOCK_ASSIGN_OR_RETURN(signature_.on_host, ReadHostInputs(library_, session_.get(), label_));
  return Status::Ok();
}

// A provider's options as the engine has them, one set of functions for each provider.
template <typename Options>
struct ProviderEntries {
  ErrorStatus* (*create)(Options**) noexcept;
  ErrorStatus* (*update)(Options*, const char* const*, const char* const*, size_t) noexcept;
  ErrorStatus* (*update_with)(Options*, const char*, void*) noexcept;
  ErrorStatus* (*append)(SessionOptions*, const Options*) noexcept;
  void (*release)(Options*) noexcept;
};

ProviderEntries<CudaOptions> CudaEntries(const Api& api) {
  return {api.CreateCUDAProviderOptions, api.UpdateCUDAProviderOptions,
          api.UpdateCUDAProviderOptionsWithValue, api.SessionOptionsAppendExecutionProvider_CUDA_V2,
          api.ReleaseCUDAProviderOptions};
}

ProviderEntries<TensorRtOptions> TensorRtEntries(const Api& api) {
  return {api.CreateTensorRTProviderOptions, api.UpdateTensorRTProviderOptions,
          api.UpdateTensorRTProviderOptionsWithValue,
          api.SessionOptionsAppendExecutionProvider_TensorRT_V2,
          api.ReleaseTensorRTProviderOptions};
}

// The engine's errors of it are of the machine, not of the model: libraries that do not open.
class ProviderAppender {
 public:
  ProviderAppender(const OrtLibrary& library, std::string what, gpu::Stream stream)
      : library_(library), what_(std::move(what)), stream_(stream) {}

  Status Append(Provider provider, const std::map<std::string, std::string>& values,
                SessionOptions* to) const {
    const Api& api = library_.api();
    return provider == Provider::kCuda ? AppendWith(CudaEntries(api), values, to)
                                       : AppendWith(TensorRtEntries(api), values, to);
  }

 private:
  template <typename Options>
  Status AppendWith(const ProviderEntries<Options>& entries,
                    const std::map<std::string, std::string>& values, SessionOptions* to) const {
    Options* raw = nullptr;
    PENSTOCK_RETURN_IF_ERROR(Check(entries.create(&raw)));
    const Owned<Options> options(raw, entries.release);
    const KeyValues pairs(values);
    PENSTOCK_RETURN_IF_ERROR(
        Check(entries.update(raw, pairs.keys.data(), pairs.texts.data(), pairs.keys.size())));
    PENSTOCK_RETURN_IF_ERROR(Check(entries.update_with(raw, "user_compute_stream", stream_)));
    return Check(entries.append(to, raw));
  }

  Status Check(ErrorStatus* error) const {
    if (error == nullptr) return Status::Ok();
    const CudaVersions versions{gpu::DriverCudaVersion(), ProviderCudaVersion(library_.file())};
    return FailedPrecondition(
        StrCat(what_, ": ", ProviderFailure(library_.TakeMessage(error), versions)));
  }

  const OrtLibrary& library_;
  const std::string what_;
  const gpu::Stream stream_;
};

}  // namespace

Result<std::vector<bool>> ReadHostInputs(const OrtLibrary& library, const Session* session,
                                         const std::string& label) {
  PENSTOCK_ASSIGN_OR_RETURN(const GpuApi gpu, library.gpu_api());
  size_t count = 0;  // without those that have a default, which are the signature's last
  PENSTOCK_RETURN_IF_ERROR(
      library.ToStatus(library.api().SessionGetInputCount(session, &count), label));
  std::vector<const MemoryInfo*> memories(count);
  PENSTOCK_RETURN_IF_ERROR(
      library.ToStatus(gpu.SessionGetMemoryInfoForInputs(session, memories.data(), count), label));
  std::vector<bool> on_host;
  for (const MemoryInfo* memory : memories) {
    const char* name = nullptr;
    PENSTOCK_RETURN_IF_ERROR(
        library.ToStatus(library.api().MemoryInfoGetName(memory, &name), label));
    on_host.push_back(name == kHostMemory);
  }
  return on_host;
}

Status CheckProviders(const OrtLibrary& library, const std::string& label,
                      const GpuSettings& settings) {
  PENSTOCK_ASSIGN_OR_RETURN(const auto found, AvailableProviders(library));
  std::string all;
  for (const std::string& each : found) all += StrCat(all.empty() ? "" : ", ", each);
  const auto has = [&](std::string_view name) {
    return std::find(found.begin(), found.end(), name) != found.end();
  };
  for (const ProviderSettings& provider : settings.providers) {
    const std::string_view wanted = ProviderName(provider.provider);
    if (has(wanted)) continue;
    // What has CUDA's was built without the other, whatever lies beside it.
    const std::string how =
        HowToGetProviders(has(ProviderName(Provider::kCuda)) ? "" : library.file());
    return FailedPrecondition(StrCat(label, ": KIND_GPU needs ", wanted, ", and ONNX Runtime ",
                                     library.version(), " has ", all, ": ", how,
                                     "; KIND_CPU runs as it is"));
  }
  const auto gpu = library.gpu_api();
  return gpu.ok() ? Status::Ok()
                  : Status(gpu.status().code(), StrCat(label, ": ", gpu.status().message()));
}

std::map<std::string, std::string> ProviderValues(const ProviderSettings& provider,
                                                  const OrtSessionOptions& options, int device) {
  std::map<std::string, std::string> values = provider.values;
  values["device_id"] = std::to_string(device);
  if (provider.provider == Provider::kCuda) {
    if (options.memory_limit_bytes > 0) {
      values.try_emplace("gpu_mem_limit", std::to_string(options.memory_limit_bytes));
    }
    return values;
  }
  // Without a path they are read from and written to whatever directory the process is in.
  if (options.gpu.keeps_engines) values["trt_engine_cache_path"] = options.engine_directory;
  if (options.gpu.needs_cache()) values["trt_timing_cache_path"] = options.engine_directory;
  return values;
}

Status OrtSessionOpener::Append(int device, gpu::Stream stream, const ProfileOptions* profiles,
                                SessionOptions* to) const {
  const std::string label = ModelLabel(options_.load);
  for (const ProviderSettings& provider : options_.gpu.providers) {
    const bool is_tensorrt = provider.provider == Provider::kTensorrt;
    if (is_tensorrt && profiles == nullptr) continue;
    auto values = ProviderValues(provider, options_, device);
    if (is_tensorrt) values.insert(profiles->begin(), profiles->end());
    const ProviderAppender appender(
        library_,
        StrCat(label, ": the ", ProviderName(provider.provider), " of ONNX Runtime ",
               library_.version(), " cannot be used"),
        stream);
    PENSTOCK_RETURN_IF_ERROR(appender.Append(provider.provider, values, to));
  }
  return Status::Ok();
}

Result<std::unique_ptr<DeviceSession>> OrtSessionOpener::OpenOne(
    int device, gpu::Stream stream, const ProfileOptions* profiles) const {
  PENSTOCK_ASSIGN_OR_RETURN(auto session, MakeSession(library_, options_.load, options_.settings,
                                                      options_.facts, [&](SessionOptions* to) {
                                                        return Append(device, stream, profiles, to);
                                                      }));
  auto made =
      std::make_unique<OrtDeviceSession>(library_, ModelLabel(options_.load), std::move(session));
  PENSTOCK_RETURN_IF_ERROR(made->Prepare(options_.facts, device));
  return std::unique_ptr<DeviceSession>(std::move(made));
}

Result<std::unique_ptr<DeviceSession>> OrtSessionOpener::Open(int device, gpu::Stream stream) {
  const bool has_tensorrt = options_.gpu.providers.front().provider == Provider::kTensorrt;
  return has_tensorrt ? profiled_.Open(device, stream) : OpenOne(device, stream, nullptr);
}

}  // namespace penstock::ort
