#include "backends/onnxruntime/session_maker.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/strcat.h"

namespace penstock::ort {
namespace {

// Below this a model runs on its instance's thread alone: waking a second thread costs more than
// the work it takes over. Microseconds for batches of 1 / 16 / 64 rows on one thread and on a
// shared pool of two (2 cores, bench/micro/backend_bench, best of 25):
//   multi-layer perceptron, 19 KiB     4 /  5 /   10     4 /  11 /   17
//                          333 KiB     7 / 21 /   71     9 /  37 /  116
//                          1.2 MiB    31 / 86 /  344    29 /  72 /  233
//                          4.4 MiB   164 / 836 / 4628  168 / 341 /  819
//   random forest,         3.6 MiB     4 / 33 /  123     5 /  31 /  101
// Convolutions are the exception, much work for few weights (56 KiB: 32 / 477 / 2064, 48 / 344 /
// 1107).
constexpr uint64_t kTinyModelBytes = 512 << 10;

// Threads inside one operator; 0 = the shared pool.
int ChooseIntraOpThreads(const Settings& settings, const ModelFileFacts& facts) {
  if (settings.intra_op_threads) return *settings.intra_op_threads;
  const bool is_tiny = facts.size_bytes < kTinyModelBytes && !facts.has_heavy_operator;
  return is_tiny ? 1 : 0;
}

class OptionsBuilder {
 public:
  explicit OptionsBuilder(const OrtLibrary& library)
      : library_(library), api_(library.api()), options_(nullptr, api_.ReleaseSessionOptions) {}

  Result<Owned<SessionOptions>> Build(const std::string& log_id, const Settings& settings,
                                      int intra_op_threads) && {
    SessionOptions* raw = nullptr;
    PENSTOCK_RETURN_IF_ERROR(Check(api_.CreateSessionOptions(&raw)));
    options_.reset(raw);
    PENSTOCK_RETURN_IF_ERROR(Check(api_.SetSessionLogId(raw, log_id.c_str())));
    PENSTOCK_RETURN_IF_ERROR(
        Check(api_.SetSessionGraphOptimizationLevel(raw, settings.graph_level)));
    PENSTOCK_RETURN_IF_ERROR(SetThreads(settings, intra_op_threads));
    PENSTOCK_RETURN_IF_ERROR(SetMemory(settings));
    for (const auto& [key, value] : settings.session_config) {
      PENSTOCK_RETURN_IF_ERROR(Check(api_.AddSessionConfigEntry(raw, key.c_str(), value.c_str())));
    }
    return std::move(options_);
  }

 private:
  Status Check(ErrorStatus* error) const {
    return library_.ToStatus(error, "ONNX Runtime session options");
  }

  Status SetThreads(const Settings& settings, int intra_op_threads) {
    SessionOptions* raw = options_.get();
    const bool is_parallel = settings.execution_mode == ExecutionMode::kParallel;
    PENSTOCK_RETURN_IF_ERROR(Check(api_.SetSessionExecutionMode(raw, settings.execution_mode)));
    // The shared pool has one thread across operators, so the parallel mode brings pools of its
    // own.
    if (intra_op_threads == 0 && !is_parallel) return Check(api_.DisablePerSessionThreads(raw));
    const int own = intra_op_threads == 0 ? library_.shared_threads() : intra_op_threads;
    PENSTOCK_RETURN_IF_ERROR(Check(api_.SetIntraOpNumThreads(raw, own)));
    const int across =
        settings.inter_op_threads == 0 ? library_.shared_threads() : settings.inter_op_threads;
    PENSTOCK_RETURN_IF_ERROR(Check(api_.SetInterOpNumThreads(raw, is_parallel ? across : 1)));
    for (const char* key : {"session.intra_op.allow_spinning", "session.inter_op.allow_spinning"}) {
      const bool is_set =
          std::any_of(settings.session_config.begin(), settings.session_config.end(),
                      [&](const auto& entry) { return entry.first == key; });
      if (!is_set) PENSTOCK_RETURN_IF_ERROR(Check(api_.AddSessionConfigEntry(raw, key, "0")));
    }
    return Status::Ok();
  }

  Status SetMemory(const Settings& settings) {
    if (!settings.enable_mem_arena) {
      PENSTOCK_RETURN_IF_ERROR(Check(api_.DisableCpuMemArena(options_.get())));
    }
    if (!settings.enable_mem_pattern) {
      PENSTOCK_RETURN_IF_ERROR(Check(api_.DisableMemPattern(options_.get())));
    }
    return Status::Ok();
  }

  const OrtLibrary& library_;
  const Api& api_;
  Owned<SessionOptions> options_;
};

Status LoadError(StatusCode code, const OrtLibrary& library, const LoadOptions& options,
                 const std::string& message) {
  std::string text = StrCat(ModelLabel(options), " cannot be loaded by ONNX Runtime ",
                            library.version(), ": ", WithoutPaths(message, options));
  const bool is_operator_unknown =
      message.find("No Op registered") != std::string::npos ||
      message.find("is not a registered function/op") != std::string::npos;
  if (is_operator_unknown) {
    text += " (libraries of custom operators are not supported)";
  }
  return Status(code, std::move(text));
}

StatusCode CodeOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNoSuchFile:
      return StatusCode::kNotFound;
    case ErrorCode::kNotImplemented:
      return StatusCode::kUnimplemented;
    case ErrorCode::kFail:
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kNoModel:
    case ErrorCode::kInvalidProtobuf:
    case ErrorCode::kInvalidGraph:
      return StatusCode::kInvalidArgument;
    default:
      return StatusCode::kInternal;
  }
}

ErrorStatus* GiveExternalData(const Api& api, const std::vector<ExternalData>& files,
                              SessionOptions* options) {
  if (files.empty()) return nullptr;
  std::vector<const char*> locations;
  std::vector<char*> bytes;
  std::vector<size_t> sizes;
  for (const ExternalData& file : files) {
    locations.push_back(file.location.c_str());
    bytes.push_back(file.bytes.get());
    sizes.push_back(file.size);
  }
  return api.AddExternalInitializersFromFilesInMemory(options, locations.data(), bytes.data(),
                                                      sizes.data(), files.size());
}

// A mapped file that is cut short ends the process.
Status WouldBeMapped(const std::string& label, const std::string& location) {
  return InvalidArgument(StrCat(
      label, ": external data '", location,
      "' belongs to a graph inside the model's graph (of 'If', 'Loop' or 'Scan') or to an "
      "attribute, "
      "and the engine would map that file into memory for as long as it serves: keep those weights "
      "in the ONNX file itself, or set the parameter 'map_external_data' to 1 and never write to "
      "the file"));
}

}  // namespace

Result<std::shared_ptr<Session>> MakeSession(const OrtLibrary& library, const LoadOptions& options,
                                             const Settings& settings, const ModelFileFacts& facts,
                                             const AddProviders& add_providers) {
  const Api& api = library.api();
  const std::string label = ModelLabel(options);
  const std::string log_id = StrCat(options.model_name, "/", options.version);
  PENSTOCK_ASSIGN_OR_RETURN(
      const auto session_options,
      OptionsBuilder(library).Build(log_id, settings, ChooseIntraOpThreads(settings, facts)));
  if (add_providers) PENSTOCK_RETURN_IF_ERROR(add_providers(session_options.get()));
  std::vector<ExternalData> external_data;  // the engine copies it while it makes the session
  if (!settings.map_external_data) {
    if (!facts.inner_locations.empty()) return WouldBeMapped(label, *facts.inner_locations.begin());
    PENSTOCK_ASSIGN_OR_RETURN(external_data, ReadExternalData(options, facts.locations));
    PENSTOCK_RETURN_IF_ERROR(
        library.ToStatus(GiveExternalData(api, external_data, session_options.get()), label));
  }
  Session* raw = nullptr;
  ErrorStatus* error =
      api.CreateSession(library.env(), options.path.c_str(), session_options.get(), &raw);
  if (error != nullptr) {
    const StatusCode code = CodeOf(api.GetErrorCode(error));
    return LoadError(code, library, options, library.TakeMessage(error));
  }
  return std::shared_ptr<Session>(raw, api.ReleaseSession);
}

Result<Owned<RunOptions>> MakeRunOptions(const OrtLibrary& library, const Api& api, RunEnd end,
                                         const std::string& label) {
  RunOptions* raw = nullptr;
  PENSTOCK_RETURN_IF_ERROR(library.ToStatus(api.CreateRunOptions(&raw), label));
  Owned<RunOptions> options(raw, api.ReleaseRunOptions);
  // What fails in a run comes back as a Status; what the engine would warn of comes with every
  // batch.
  PENSTOCK_RETURN_IF_ERROR(
      library.ToStatus(api.RunOptionsSetRunLogSeverityLevel(raw, LogSeverity::kFatal), label));
  if (end == RunEnd::kOver) return options;
  // A run returns when it is enqueued: the lane's events say when it is over.
  PENSTOCK_RETURN_IF_ERROR(library.ToStatus(
      api.AddRunConfigEntry(raw, "disable_synchronize_execution_providers", "1"), label));
  return options;
}

}  // namespace penstock::ort
