#include "backends/onnxruntime/gpu_settings.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <utility>

#include "backends/tensorrt/plan_settings.h"
#include "base/strcat.h"

namespace penstock::ort {
namespace {

constexpr std::string_view kKind = "device_kind", kRows = "max_batch_size",
                           kShares = "dynamic_batching", kDevice = "device";
constexpr std::string_view kAccelerators = "accelerators", kShape = "shape:";
constexpr std::string_view kCuda = "cuda.", kTensorrt = "tensorrt.";
constexpr std::string_view kShrinkage = "memory.enable_memory_arena_shrinkage";
constexpr uint32_t kMostRows = 1 << 20;
constexpr int64_t kMostElements = int64_t{1} << 40;

// What a value may be. kFlag: 0, 1, true, false; the engine's CUDA provider wants numbers, its
// TensorRT provider words. kOn: 1 or true. kCountOrAll: a number, or -1. kSources: "+NAME,-NAME".
enum class Form { kFlag, kOn, kWordFlag, kNumber, kCountOrAll, kChoice, kPrecision, kSources };

struct Option {
  std::string_view name;
  Form form;
  std::string_view engines_name;  // empty: the same
  std::array<std::string_view, 3> choices = {};
  std::string_view why_on = {};  // kOn: what is against 0
};

// On streams of their own the engine's copies race with what it computes: its documentation warns of
// it (its issue 4829), and its arena gives memory out again by the order of one stream.
constexpr std::string_view kCopiesRace =
    "with 0 the engine's copies race with what it computes, and answers may be wrong";
constexpr std::string_view kOneStream =
    "the server gives each session one stream, and the engine computes on no other";

// Triton's older parameters write a choice as its number.
constexpr std::array<Option, 12> kCudaOptions = {{
    {"arena_extend_strategy", Form::kChoice, "", {"kNextPowerOfTwo", "kSameAsRequested"}},
    {"cudnn_conv_algo_search", Form::kChoice, "", {"EXHAUSTIVE", "HEURISTIC", "DEFAULT"}},
    {"gpu_mem_limit", Form::kNumber, ""},
    {"do_copy_in_default_stream", Form::kOn, "", {}, kCopiesRace},
    {"cudnn_conv_use_max_workspace", Form::kFlag, ""},
    {"cudnn_conv1d_pad_to_nc1d", Form::kFlag, ""},
    {"enable_skip_layer_norm_strict_mode", Form::kFlag, ""},
    {"fuse_conv_bias", Form::kFlag, ""},
    {"prefer_nhwc", Form::kFlag, ""},
    {"sdpa_kernel", Form::kNumber, ""},
    {"use_ep_level_unified_stream", Form::kOn, "", {}, kOneStream},
    {"use_tf32", Form::kFlag, ""},
}};
constexpr size_t kOlderOptions = 4;  // the first ones, which `parameters` may have by themselves

constexpr std::array<Option, 20> kTensorrtOptions = {{
    {"precision_mode", Form::kPrecision, ""},
    {"max_workspace_size_bytes", Form::kNumber, "trt_max_workspace_size"},
    {"trt_max_workspace_size", Form::kNumber, ""},
    {"trt_max_partition_iterations", Form::kNumber, ""},
    {"trt_min_subgraph_size", Form::kNumber, ""},
    {"trt_fp16_enable", Form::kWordFlag, ""},
    {"trt_bf16_enable", Form::kWordFlag, ""},
    {"trt_int8_enable", Form::kWordFlag, ""},
    {kKeepEngines, Form::kWordFlag, ""},
    {kKeepTimings, Form::kWordFlag, ""},
    {"trt_force_timing_cache", Form::kWordFlag, ""},
    {"trt_force_sequential_engine_build", Form::kWordFlag, ""},
    {"trt_context_memory_sharing_enable", Form::kWordFlag, ""},
    {"trt_layer_norm_fp32_fallback", Form::kWordFlag, ""},
    {"trt_build_heuristics_enable", Form::kWordFlag, ""},
    {"trt_sparsity_enable", Form::kWordFlag, ""},
    {"trt_detailed_build_log", Form::kWordFlag, ""},
    {"trt_builder_optimization_level", Form::kNumber, ""},
    {"trt_auxiliary_streams", Form::kCountOrAll, ""},
    {"trt_tactic_sources", Form::kSources, ""},
}};

struct Refusal {
  std::string_view name, why;
};

// What the engine knows and a model must not say.
constexpr std::array<Refusal, 12> kRefused = {{
    {"user_compute_stream", "the server gives the engine its streams"},
    {"has_user_compute_stream", "the server gives the engine its streams"},
    {"device_id", "instance_group.gpus says which GPU"},
    {"enable_cuda_graph",
     "the engine's graphs belong to the thread that captured them and are replayed with the thread "
     "waiting"},
    {"trt_cuda_graph_enable",
     "the engine's graph is of one batch's size and memory, and lanes have several of both"},
    {"trt_engine_cache_path", "the server keeps engines in its --engine-cache"},
    {"trt_engine_cache_prefix", "the server keeps engines in its --engine-cache"},
    {"trt_timing_cache_path", "the server keeps engines in its --engine-cache"},
    {"trt_extra_plugin_lib_paths", "a model's configuration loads no libraries"},
    {"trt_profile_min_shapes", "parameters 'shape:NAME' and max_batch_size say it"},
    {"trt_profile_opt_shapes", "parameters 'shape:NAME' and max_batch_size say it"},
    {"trt_profile_max_shapes", "parameters 'shape:NAME' and max_batch_size say it"},
}};

Status Bad(std::string_view name, std::string_view value, std::string_view expected) {
  return InvalidArgument(StrCat("parameter '", name, "' of the onnxruntime backend: expected ",
                                expected, ", got '", value, "'"));
}

template <typename Number>
std::optional<Number> ToNumber(std::string_view text) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::vector<std::string> Split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, at);) parts.push_back(part);
  return parts;
}

Result<std::string> ReadFlag(std::string_view name, const std::string& value, bool as_word) {
  const bool is_on = value == "1" || value == "true";
  if (!is_on && value != "0" && value != "false") return Bad(name, value, "0 or 1");
  if (as_word) return std::string(is_on ? "True" : "False");
  return std::string(is_on ? "1" : "0");
}

Result<std::string> ReadOn(const Option& option, std::string_view name, const std::string& value) {
  PENSTOCK_ASSIGN_OR_RETURN(std::string flag, ReadFlag(name, value, /*as_word=*/false));
  if (flag == "1") return flag;
  return Bad(name, value, StrCat("1: ", option.why_on));
}

Result<std::string> ReadCountOrAll(std::string_view name, const std::string& value) {
  const auto count = ToNumber<int32_t>(value);
  if (!count || *count < -1) return Bad(name, value, "a number, or -1: as TensorRT sees fit");
  return value;
}

// What the engine passes over with a warning, or takes for another source, is refused.
Result<std::string> ReadSources(std::string_view name, const std::string& value) {
  static constexpr std::array<std::string_view, 5> kSources = {
      "CUBLAS", "CUBLAS_LT", "CUDNN", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"};
  const std::vector<std::string> parts = Split(value, ',');
  const bool is_list = std::all_of(parts.begin(), parts.end(), [](const std::string& part) {
    return (part.starts_with('+') || part.starts_with('-')) &&
           std::find(kSources.begin(), kSources.end(), part.substr(1)) != kSources.end();
  });
  if (is_list && !parts.empty() && !value.ends_with(',')) return value;
  return Bad(name, value,
             "+NAME or -NAME, with commas, of CUBLAS, CUBLAS_LT, CUDNN, EDGE_MASK_CONVOLUTIONS and "
             "JIT_CONVOLUTIONS");
}

Result<std::string> ReadChoice(const Option& option, std::string_view name,
                               const std::string& value) {
  std::string known;
  for (size_t i = 0; i < option.choices.size() && !option.choices[i].empty(); ++i) {
    if (value == option.choices[i] || value == std::to_string(i)) {
      return std::string(option.choices[i]);
    }
    known += StrCat(i == 0 ? "" : " or ", i, " (", option.choices[i], ")");
  }
  return Bad(name, value, known);
}

Status ReadPrecision(std::string_view name, const std::string& value, ProviderSettings* to) {
  if (value != "FP32" && value != "FP16" && value != "BF16" && value != "INT8") {
    return Bad(name, value, "FP32, FP16, BF16 or INT8");
  }
  if (value == "FP16") to->values["trt_fp16_enable"] = "True";
  if (value == "BF16") to->values["trt_bf16_enable"] = "True";
  if (value == "INT8") to->values["trt_int8_enable"] = "True";
  return Status::Ok();
}

// `name`: in full, for messages.
Status ReadOption(const Option& option, std::string_view name, const std::string& value,
                  ProviderSettings* to) {
  if (option.form == Form::kPrecision) return ReadPrecision(name, value, to);
  Result<std::string> read = value;
  if (option.form == Form::kChoice) read = ReadChoice(option, name, value);
  if (option.form == Form::kFlag) read = ReadFlag(name, value, /*as_word=*/false);
  if (option.form == Form::kOn) read = ReadOn(option, name, value);
  if (option.form == Form::kCountOrAll) read = ReadCountOrAll(name, value);
  if (option.form == Form::kSources) read = ReadSources(name, value);
  if (option.form == Form::kWordFlag) read = ReadFlag(name, value, /*as_word=*/true);
  if (option.form == Form::kNumber && !ToNumber<uint64_t>(value))
    read = Bad(name, value, "a number");
  if (!read.ok()) return read.status();
  to->values[std::string(option.engines_name.empty() ? option.name : option.engines_name)] = *read;
  return Status::Ok();
}

template <size_t N>
const Option* FindOption(const std::array<Option, N>& options, std::string_view name) {
  const auto found = std::find_if(options.begin(), options.end(),
                                  [&](const Option& each) { return each.name == name; });
  return found == options.end() ? nullptr : &*found;
}

bool IsOlder(std::string_view name) {
  return std::any_of(kCudaOptions.begin(), kCudaOptions.begin() + kOlderOptions,
                     [&](const Option& each) { return each.name == name; });
}

template <size_t N>
Status ReadOf(const std::array<Option, N>& options, std::string_view prefix, std::string_view name,
              const std::string& value, ProviderSettings* to) {
  const std::string full = StrCat(prefix, name);
  const Option* option = FindOption(options, name);
  if (option != nullptr) return ReadOption(*option, full, value, to);
  for (const Refusal& refusal : kRefused) {
    if (refusal.name != name) continue;
    return InvalidArgument(StrCat("parameter '", full,
                                  "' of the onnxruntime backend is not supported: ", refusal.why));
  }
  std::string known;
  for (const Option& each : options) known += StrCat(known.empty() ? "" : ", ", each.name);
  return InvalidArgument(StrCat(
      "parameter '", full, "' is not supported by the onnxruntime backend; supported are ", known));
}

// As "1x8": sizes of a shape.
std::optional<Shape> ReadShape(const std::string& text) {
  Shape shape;
  for (const std::string& part : Split(text, 'x')) {
    const auto size = ToNumber<int64_t>(part);
    if (!size || *size < 1 || *size > kMostElements || shape.rank() == kMaxRank) {
      return std::nullopt;
    }
    shape.Append(*size);
  }
  return shape.empty() ? std::nullopt : std::optional(shape);
}

Status ReadRange(const std::string& name, const std::string& value, GpuSettings* settings) {
  std::vector<Shape> shapes;
  for (const std::string& part : Split(value, ':')) {
    const auto shape = ReadShape(part);
    if (!shape) break;
    shapes.push_back(*shape);
  }
  const size_t parts = Split(value, ':').size();
  if (shapes.size() != parts || (parts != 1 && parts != 3)) {
    return Bad(name, value, "LEAST:LIKELY:GREATEST, as 1x8:4x8:8x8");
  }
  settings->ranges.ranges[name.substr(kShape.size())] = {shapes.front(), shapes[parts / 2],
                                                         shapes.back()};
  return Status::Ok();
}

// Threading: thread-compatible.
class Reader {
 public:
  Status Read(const std::string& name, const std::string& value);
  // INVALID_ARGUMENT where something is set of TensorRT's provider and the model does not ask for it,
  // or something that its provider makes void.
  Result<GpuSettings> Finish();

 private:
  Status ReadAccelerators(const std::string& value);
  Status CheckTogether() const;

  GpuSettings settings_;
  bool has_tensorrt_ = false;
  // Parameters in full; empty: none was there.
  std::string of_tensorrt_;  // that provider's
  std::string of_arena_;     // the arena's of the CUDA provider
  ProviderSettings cuda_{Provider::kCuda, {}}, tensorrt_{Provider::kTensorrt, {}};
};

Status Reader::Read(const std::string& name, const std::string& value) {
  for (const std::string_view captured : {"cuda_graphs", "graph_memory_mb"}) {
    if (name != captured) continue;
    return InvalidArgument(StrCat("parameter '", name,
                                  "' of the onnxruntime backend is not supported: what the engine ",
                                  "enqueues cannot be captured by others"));
  }
  if (name == kShrinkage) {
    return InvalidArgument(StrCat("parameter '", name,
                                  "' of the onnxruntime backend is for KIND_CPU: what the engine ",
                                  "holds of a GPU's memory is not shrunk"));
  }
  const std::string bare = name.starts_with(kCuda) ? name.substr(kCuda.size()) : name;
  if (bare == "gpu_mem_limit" || bare == "arena_extend_strategy") of_arena_ = name;
  if (name == kAccelerators) return ReadAccelerators(value);
  if (name == kRows) {
    const auto rows = ToNumber<uint32_t>(value);
    if (!rows || *rows > kMostRows) return Bad(name, value, StrCat("0 to ", kMostRows));
    settings_.ranges.max_rows = *rows;
    return Status::Ok();
  }
  if (name.starts_with(tensorrt::kListedRank)) {
    const auto rank = ToNumber<size_t>(value);
    if (!rank) return Bad(name, value, "a number");
    settings_.ranges.listed_ranks[name.substr(tensorrt::kListedRank.size())] = *rank;
    return Status::Ok();
  }
  if (name == kShares) {
    settings_.shares_batches = value == "1";
    return Status::Ok();
  }
  if (name.starts_with(kShape)) return ReadRange(name, value, &settings_);
  if (name.starts_with(kCuda)) {
    return ReadOf(kCudaOptions, kCuda, name.substr(kCuda.size()), value, &cuda_);
  }
  if (name.starts_with(kTensorrt)) {
    of_tensorrt_ = name;
    return ReadOf(kTensorrtOptions, kTensorrt, name.substr(kTensorrt.size()), value, &tensorrt_);
  }
  return IsOlder(name) ? ReadOf(kCudaOptions, "", name, value, &cuda_) : Status::Ok();
}

Status Reader::ReadAccelerators(const std::string& value) {
  for (const std::string& each : Split(value, ',')) {
    if (each != "cuda" && each != "tensorrt") {
      return Bad("optimization.execution_accelerators.gpu_execution_accelerator", each,
                 "'tensorrt' or 'cuda'");
    }
    has_tensorrt_ = has_tensorrt_ || each == "tensorrt";
  }
  return Status::Ok();
}

// A session's memory on a device is that of the provider that comes first there.
Status Reader::CheckTogether() const {
  if (!of_tensorrt_.empty() && !has_tensorrt_) {
    return InvalidArgument(StrCat("parameter '", of_tensorrt_,
                                  "' of the onnxruntime backend needs gpu_execution_accelerator "
                                  "'tensorrt', which the model does not ask for"));
  }
  if (of_arena_.empty() || !has_tensorrt_) return Status::Ok();
  return InvalidArgument(StrCat("parameter '", of_arena_,
                                "' of the onnxruntime backend has no effect with "
                                "gpu_execution_accelerator 'tensorrt': the engine's memory is then "
                                "that of TensorRT's provider, which has no such setting"));
}

Result<GpuSettings> Reader::Finish() {
  PENSTOCK_RETURN_IF_ERROR(CheckTogether());
  // Its own default, EXHAUSTIVE, is cuDNN's heuristic B where the engine is built for cuDNN 9, and
  // tries every algorithm where it is built for cuDNN 8: either takes longer than HEURISTIC (there
  // heuristic A), at each new shape, which would be within requests. DEFAULT is what cuDNN falls back
  // to, and may be very slow.
  cuda_.values.try_emplace("cudnn_conv_algo_search", "HEURISTIC");
  // Doubling would take up to twice as much of a device that models share.
  cuda_.values.try_emplace("arena_extend_strategy", "kSameAsRequested");
  const auto is_on = [&](std::string_view name) {
    const auto found = tensorrt_.values.find(std::string(name));
    return found != tensorrt_.values.end() && found->second == "True";
  };
  settings_.keeps_engines = is_on(kKeepEngines);
  settings_.keeps_timings = is_on(kKeepTimings);
  if (has_tensorrt_) settings_.providers.push_back(std::move(tensorrt_));
  settings_.providers.push_back(std::move(cuda_));
  return std::move(settings_);
}

}  // namespace

std::string_view ProviderName(Provider provider) {
  return provider == Provider::kCuda ? "CUDAExecutionProvider" : "TensorrtExecutionProvider";
}

bool IsGpuParameter(std::string_view name) {
  return name.starts_with(kCuda) || name.starts_with(kTensorrt) || name == kAccelerators ||
         IsOlder(name);
}

Result<std::optional<GpuSettings>> ReadGpuSettings(
    const std::map<std::string, std::string>& parameters) {
  const auto kind = parameters.find(std::string(kKind));
  if (kind == parameters.end()) {
    for (const auto& [name, value] : parameters) {
      if (!IsGpuParameter(name) && name != kDevice) continue;
      return InvalidArgument(
          StrCat("parameter '", name,
                 "' of the onnxruntime backend is for GPUs: it needs an "
                 "instance_group of KIND_GPU (instance_group { kind: KIND_GPU })"));
    }
    return std::optional<GpuSettings>();
  }
  if (kind->second != "gpu") return Bad(kKind, kind->second, "'gpu'");
  Reader reader;
  for (const auto& [name, value] : parameters) {
    PENSTOCK_RETURN_IF_ERROR(reader.Read(name, value));
  }
  PENSTOCK_ASSIGN_OR_RETURN(GpuSettings settings, reader.Finish());
  return std::optional<GpuSettings>(std::move(settings));
}

}  // namespace penstock::ort
