#include "backends/openvino/shape_check.h"

#include <map>
#include <openvino/op/constant.hpp>
#include <openvino/op/parameter.hpp>

namespace penstock::openvino {
namespace {

// Shapes are inferred from the values of small constants only: axes, sizes, patterns.
constexpr size_t kSmallConstantBytes = 4096;

// Puts something of the same type and shape in the place of each large constant, so that a graph
// that is kept for its shapes does not keep the weights.
void DropWeights(ov::Model* graph) {
  for (const auto& node : graph->get_ordered_ops()) {
    const auto constant = std::dynamic_pointer_cast<ov::op::v0::Constant>(node);
    if (constant == nullptr || constant->get_byte_size() <= kSmallConstantBytes) continue;
    const auto stand_in = std::make_shared<ov::op::v0::Parameter>(constant->get_element_type(),
                                                                  constant->get_shape());
    constant->output(0).replace(stand_in->output(0));
    graph->add_parameters({stand_in});
  }
}

}  // namespace

ShapeCheck::ShapeCheck(const ov::Model& model) {
  if (!model.is_dynamic()) return;
  graph_ = model.clone();
  DropWeights(graph_.get());
}

void ShapeCheck::Check(std::span<const BatchInput> inputs, const ShapeKey& key) {
  MutexLock lock(mu_);
  if (known_.count(key) != 0) return;
  std::map<size_t, ov::PartialShape> shapes;
  for (const BatchInput& input : inputs) {
    shapes[input.index] = ov::PartialShape(
        std::vector<ov::Dimension>(input.tensor.shape.begin(), input.tensor.shape.end()));
  }
  // Not Model::reshape: it rewrites the graph first, and then takes shapes that the compiled graph,
  // which is not rewritten, cannot compute.
  const ov::ParameterVector& parameters = graph_->get_parameters();
  for (const auto& [index, shape] : shapes) parameters[index]->set_partial_shape(shape);
  graph_->validate_nodes_and_infer_types();
  if (known_.size() >= kMaxKnown) known_.clear();
  known_.insert(key);
}

}  // namespace penstock::openvino
