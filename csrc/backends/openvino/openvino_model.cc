#include "backends/openvino/openvino_model.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <openvino/op/constant.hpp>
#include <openvino/runtime/properties.hpp>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/openvino/engine_error.h"
#include "backends/openvino/model_file.h"
#include "backends/openvino/openvino_instance.h"
#include "backends/openvino/padded_rows.h"
#include "backends/openvino/read_model.h"
#include "backends/openvino/row_wise.h"
#include "base/log.h"
#include "base/strcat.h"

namespace penstock::openvino {
namespace {

constexpr const char* kDevice = "CPU";

// Below this a second thread gains nothing, and is woken for each batch all the same: of a server of
// digits it took a fifth of the time. Microseconds for batches of 1 / 16 / 64 rows of multi-layer
// perceptrons on one thread and on two (2 cores, busy with other work, called from Python, best of
// 25):
//    32 KiB    11 /  13 /   20    12 /  14 /   22
//   320 KiB    15 /  36 /  107    17 /  39 /  108
//   1.2 MiB    29 / 105 /  549    31 / 103 /  580
//   4.4 MiB    70 / 466 / 1772    64 / 545 / 1817
constexpr size_t kTinyModelBytes = 512 << 10;

// Work out of proportion to the weights.
constexpr std::array<std::string_view, 12> kHeavyOperators = {"Convolution",
                                                              "ConvolutionBackpropData",
                                                              "DeformableConvolution",
                                                              "GroupConvolution",
                                                              "GroupConvolutionBackpropData",
                                                              "GRUSequence",
                                                              "Loop",
                                                              "LSTMSequence",
                                                              "RNNSequence",
                                                              "ScaledDotProductAttention",
                                                              "TensorIterator",
                                                              "If"};

// Nothing where it is not tiny.
std::optional<size_t> TinyModelBytes(const ov::Model& model) {
  size_t weight_bytes = 0;
  for (const auto& node : model.get_ops()) {
    const std::string_view type = node->get_type_info().name;
    if (std::find(kHeavyOperators.begin(), kHeavyOperators.end(), type) != kHeavyOperators.end()) {
      return std::nullopt;
    }
    const auto constant = std::dynamic_pointer_cast<const ov::op::v0::Constant>(node);
    if (constant != nullptr) weight_bytes += constant->get_byte_size();
  }
  if (weight_bytes >= kTinyModelBytes) return std::nullopt;
  return weight_bytes;
}

size_t RowBytes(const ov::PartialShape& shape, const ov::element::Type& type) {
  size_t bytes = type.size();
  for (std::ptrdiff_t i = 1; i < std::ssize(shape); ++i) {
    bytes *= static_cast<size_t>(shape[i].get_length());
  }
  return bytes;
}

// What a row that nobody reads costs: the weights and its tensors are read. 0: there is to be none.
size_t SpareRowBytes(const ov::Model& model) {
  const std::optional<size_t> weight_bytes = TinyModelBytes(model);
  if (!weight_bytes || !IsRowWise(model)) return 0;
  size_t bytes = *weight_bytes;
  for (const auto& each : model.inputs()) {
    bytes += RowBytes(each.get_partial_shape(), each.get_element_type());
  }
  for (const auto& each : model.outputs()) {
    bytes += RowBytes(each.get_partial_shape(), each.get_element_type());
  }
  return bytes <= PaddedRows::kSpareBytes / 2 ? bytes : 0;
}

ov::hint::PerformanceMode ToMode(Hint hint) {
  switch (hint) {
    case Hint::kLatency:
      return ov::hint::PerformanceMode::LATENCY;
    case Hint::kThroughput:
      return ov::hint::PerformanceMode::THROUGHPUT;
    case Hint::kCumulativeThroughput:
      return ov::hint::PerformanceMode::CUMULATIVE_THROUGHPUT;
  }
  return ov::hint::PerformanceMode::LATENCY;
}

ov::streams::Num ToStreams(int streams) {
  if (streams == kAutoStreams) return ov::streams::AUTO;
  if (streams == kNumaStreams) return ov::streams::NUMA;
  return ov::streams::Num(streams);
}

// The precision asked for where this CPU computes in it, else FP32: the engine would take FP16 for
// BF16, which is neither the model's precision nor what was asked for.
ov::element::Type ChoosePrecision(ov::Core& core, Precision asked, const std::string& label) {
  if (asked == Precision::kFp32) return ov::element::f32;
  const bool is_bf16 = asked == Precision::kBf16;
  const std::vector<std::string> has = core.get_property(kDevice, ov::device::capabilities);
  const std::string name = is_bf16 ? ov::device::capability::BF16 : ov::device::capability::FP16;
  if (std::find(has.begin(), has.end(), name) != has.end()) {
    return is_bf16 ? ov::element::bf16 : ov::element::f16;
  }
  Log(LogLevel::kWarning, "openvino",
      StrCat(label, " asks for ", name, ", which this CPU does not compute in: it runs in FP32"));
  return ov::element::f32;
}

ov::AnyMap Properties(ov::Core& core, const ov::Model& model, const Settings& settings,
                      const std::string& label) {
  const ov::element::Type precision = ChoosePrecision(core, settings.precision, label);
  // In the accuracy mode the engine does not make activations of FP32 models 8 bits wide either.
  const auto mode = precision == ov::element::f32 ? ov::hint::ExecutionMode::ACCURACY
                                                  : ov::hint::ExecutionMode::PERFORMANCE;
  ov::AnyMap properties{
      ov::hint::execution_mode(mode), ov::hint::inference_precision(precision),
      ov::hint::performance_mode(ToMode(settings.hint)),
      // Threads that are tied to cores take them from those that parse and answer.
      ov::hint::enable_cpu_pinning(false)};
  std::optional<int> streams = settings.streams;
  std::optional<int> threads = settings.inference_threads;
  if (!threads && settings.hint == Hint::kLatency && !streams && TinyModelBytes(model)) threads = 1;
  if (threads == 1 && !streams) streams = 0;  // see infers_on_caller
  if (streams) properties.insert(ov::num_streams(ToStreams(*streams)));
  if (threads.value_or(0) > 0) properties.insert(ov::inference_num_threads(*threads));
  return properties;
}

}  // namespace

Result<std::unique_ptr<BackendModel>> OpenVinoModel::Load(ov::Core& core,
                                                          ov::frontend::FrontEndManager& frontends,
                                                          const LoadOptions& options) {
  const std::string label = ModelLabel(options);
  Result<Settings> settings = ParseSettings(options.parameters);
  if (!settings.ok()) {
    return Status(settings.status().code(), StrCat(label, ": ", settings.status().message()));
  }
  PENSTOCK_ASSIGN_OR_RETURN(const Format format, InspectFiles(options));
  PENSTOCK_ASSIGN_OR_RETURN(const std::shared_ptr<ov::Model> graph,
                            ReadModel(frontends, format, options));
  PENSTOCK_ASSIGN_OR_RETURN(GraphSignature signature, ReadSignature(*graph, label));
  if (!settings->shapes.empty()) {
    PENSTOCK_RETURN_IF_ERROR(
        ReshapeInputs(settings->shapes, signature.signature, options, graph.get()));
    PENSTOCK_ASSIGN_OR_RETURN(signature, ReadSignature(*graph, label));
  }
  std::unique_ptr<OpenVinoModel> model(new OpenVinoModel(label, std::move(signature)));
  PENSTOCK_RETURN_IF_ERROR(model->Compile(core, graph, *settings, options));
  return std::unique_ptr<BackendModel>(std::move(model));
}

Status OpenVinoModel::Compile(ov::Core& core, const std::shared_ptr<ov::Model>& model,
                              const Settings& settings, const LoadOptions& options) {
  try {
    shape_check_ = std::make_unique<ShapeCheck>(*model);
    spare_row_bytes_ = SpareRowBytes(*model);
    compiled_ = core.compile_model(model, kDevice, Properties(core, *model, settings, label_));
    const auto streams = static_cast<int32_t>(compiled_.get_property(ov::num_streams).num);
    infers_on_caller_ =
        streams == 0 || compiled_.get_property(ov::inference_num_threads) >= 2 * streams;
  } catch (const std::exception& error) {
    return LoadError(StrCat(label_, " cannot be compiled by OpenVINO ", PENSTOCK_OPENVINO_VERSION),
                     error, options);
  }
  return Status::Ok();
}

Result<std::unique_ptr<BackendInstance>> OpenVinoModel::CreateInstance(
    const InstanceOptions& options) {
  return Guard<std::unique_ptr<BackendInstance>>(
      StrCat(label_, ": instance '", options.name, "' cannot be made"),
      [&]() -> Result<std::unique_ptr<BackendInstance>> {
        return std::unique_ptr<BackendInstance>(
            std::make_unique<OpenVinoInstance>(*this, compiled_.create_infer_request()));
      });
}

}  // namespace penstock::openvino
