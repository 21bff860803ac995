#include "backends/openvino/unchecked_operators.h"

#include <algorithm>
#include <array>
#include <openvino/op/constant.hpp>
#include <openvino/op/roi_align.hpp>
#include <openvino/op/roi_pooling.hpp>
#include <openvino/op/util/multi_subgraph_base.hpp>
#include <openvino/op/util/read_value_base.hpp>
#include <openvino/op/util/shape_of_base.hpp>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "backends/openvino/engine_error.h"
#include "base/strcat.h"

namespace penstock::openvino {
namespace {

using Bodies = ov::op::util::MultiSubGraphOp;  // If, Loop, TensorIterator

struct UncheckedInput {
  std::string_view type;
  size_t port;
  std::string_view what;
  // It may also come from the shapes of tensors, which ShapeCheck looks at before a batch runs.
  bool may_come_from_shapes = false;
};

// Found by giving each operator of the engine that takes positions values that are out of range, or
// no numbers, one by one, and three times: the second time some forget that they have refused it, and
// answer in the shape of a batch before, or crash. What is not here was refused by the engine each
// time, or did no harm.
constexpr std::array<UncheckedInput, 42> kUncheckedInputs = {{
    {"AdaptiveAvgPool", 1, "output size", true},
    {"AdaptiveMaxPool", 1, "output size", true},
    {"CTCGreedyDecoderSeqLen", 1, "lengths"},
    {"CTCLoss", 2, "labels"},
    {"CTCLoss", 4, "blank index"},
    {"Col2Im", 1, "output size"},
    {"DFT", 1, "axes"},
    {"DFT", 2, "sizes"},
    {"DeformableConvolution", 1, "offsets"},
    {"DeformablePSROIPooling", 1, "regions"},
    {"EmbeddingBagOffsets", 2, "offsets"},
    {"EmbeddingBagOffsetsSum", 2, "offsets"},
    {"Gather", 2, "axis", true},
    {"GatherND", 1, "indices"},
    {"GatherTree", 2, "lengths"},
    {"IDFT", 1, "axes"},
    {"IDFT", 2, "sizes"},
    {"IRDFT", 1, "axes"},
    {"IRDFT", 2, "sizes"},
    {"OneHot", 1, "depth", true},
    {"PSROIPooling", 1, "regions"},
    {"Pad", 1, "padding", true},
    {"Pad", 2, "padding", true},
    {"RDFT", 1, "axes"},
    {"RDFT", 2, "sizes"},
    {"ROIAlign", 1, "regions"},
    {"ROIPooling", 1, "regions"},
    {"Range", 2, "step"},
    {"Reshape", 1, "pattern", true},
    {"Roll", 1, "shift", true},
    {"Roll", 2, "axes"},
    {"ScatterElementsUpdate", 1, "indices"},
    {"Slice", 4, "axes"},
    {"SliceScatter", 2, "start"},
    {"SliceScatter", 3, "stop"},
    {"SliceScatter", 4, "step"},
    {"SliceScatter", 5, "axes"},
    {"Squeeze", 1, "axes", true},
    {"StridedSlice", 3, "strides"},
    {"StringTensorPack", 0, "begins"},
    {"StringTensorPack", 1, "ends"},
    {"TopK", 1, "number", true},
}};

using Nodes = std::unordered_set<const ov::Node*>;

// `known`: parameters of bodies that are given constants. What a state holds comes of requests, of
// earlier ones too, whatever it begins with. `or_shapes`: or from shapes.
bool ComesFromConstants(const ov::Node* node, const Nodes& known, bool or_shapes = false) {
  std::vector<const ov::Node*> left = {node};
  Nodes seen = {node};
  while (!left.empty()) {
    const ov::Node* const next = left.back();
    left.pop_back();
    if (ov::is_type<ov::op::v0::Constant>(next) || known.contains(next)) continue;
    if (or_shapes && ov::is_type<ov::op::util::ShapeOfBase>(next)) continue;
    if (next->get_input_size() == 0 || ov::is_type<ov::op::util::ReadValueBase>(next)) return false;
    for (size_t i = 0; i < next->get_input_size(); ++i) {
      const ov::Node* const source = next->get_input_node_ptr(i);
      if (seen.insert(source).second) left.push_back(source);
    }
  }
  return true;
}

// Some do in one of their modes only: ROIAlign where the regions say how many samples there are.
bool IsSafeMode(const ov::Node& node) {
  if (const auto* pooling = ov::as_type<const ov::op::v0::ROIPooling>(&node)) {
    return pooling->get_method() == "max";
  }
  if (const auto* align = dynamic_cast<const ov::op::util::ROIAlignBase*>(&node)) {
    return align->get_sampling_ratio() > 0;
  }
  return false;
}

Status CheckNode(const ov::Node& node, const Nodes& known, const LoadOptions& options) {
  const std::string_view type = node.get_type_info().name;
  for (const UncheckedInput& input : kUncheckedInputs) {
    if (type != input.type || input.port >= node.get_input_size()) continue;
    if (IsSafeMode(node) || ComesFromConstants(node.get_input_node_ptr(input.port), known,
                                               input.may_come_from_shapes)) {
      continue;
    }
    return Unimplemented(StrCat(ModelLabel(options), ": operator ", type, " '",
                                node.get_friendly_name(), "' takes its ", input.what,
                                " from a request or computes them, and OpenVINO ",
                                PENSTOCK_OPENVINO_VERSION, " does not check them"));
  }
  return Status::Ok();
}

// The parameters of a body that are constants in each of its iterations.
Nodes ConstantParameters(const Bodies& outer, size_t body, const Nodes& known) {
  Nodes constants;
  const auto& parameters = outer.get_functions()[body]->get_parameters();
  for (const auto& input : outer.get_input_descriptions(static_cast<int>(body))) {
    // A merged one is a result of the iteration before, from the second one on.
    if (ov::as_type_ptr<Bodies::MergedInputDescription>(input) != nullptr) continue;
    if (!ComesFromConstants(outer.get_input_node_ptr(input->m_input_index), known)) continue;
    constants.insert(parameters.at(input->m_body_parameter_index).get());
  }
  return constants;
}

Status CheckGraph(const ov::Model& graph, const Nodes& known, const LoadOptions& options) {
  for (const auto& node : graph.get_ordered_ops()) {
    PENSTOCK_RETURN_IF_ERROR(CheckNode(*node, known, options));
    const auto* const outer = dynamic_cast<const Bodies*>(node.get());
    if (outer == nullptr) continue;
    const auto& bodies = outer->get_functions();
    for (size_t i = 0; i < bodies.size(); ++i) {
      PENSTOCK_RETURN_IF_ERROR(
          CheckGraph(*bodies[i], ConstantParameters(*outer, i, known), options));
    }
  }
  return Status::Ok();
}

}  // namespace

Status RefuseUncheckedOperators(const ov::Model& model, const LoadOptions& options) {
  return CheckGraph(model, {}, options);
}

}  // namespace penstock::openvino
