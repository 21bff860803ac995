#include "backends/openvino/row_wise.h"

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <openvino/op/concat.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/convert.hpp>
#include <openvino/op/log_softmax.hpp>
#include <openvino/op/matmul.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/reshape.hpp>
#include <openvino/op/result.hpp>
#include <openvino/op/softmax.hpp>
#include <openvino/op/squeeze.hpp>
#include <openvino/op/unsqueeze.hpp>
#include <openvino/op/util/binary_elementwise_arithmetic.hpp>
#include <openvino/op/util/unary_elementwise_arithmetic.hpp>
#include <unordered_set>
#include <utility>

namespace penstock::openvino {
namespace {

// Rows in the first dimension, and each of one size.
bool HasRows(const ov::Output<const ov::Node>& output) {
  const ov::PartialShape& shape = output.get_partial_shape();
  if (shape.rank().is_dynamic() || shape.size() == 0 || shape[0].is_static()) return false;
  for (std::ptrdiff_t i = 1; i < std::ssize(shape); ++i) {
    if (shape[i].is_dynamic()) return false;
  }
  // Of integers it would matter what is in a row behind the batch: they divide by zero.
  return output.get_element_type().is_real();
}

int64_t RowElements(const ov::PartialShape& shape) {
  int64_t elements = 1;
  for (std::ptrdiff_t i = 1; i < std::ssize(shape); ++i) elements *= shape[i].get_length();
  return elements;
}

// The nodes whose outputs have rows, those before them looked at already; others are constants.
using Rows = std::unordered_set<const ov::Node*>;

class Walk {
 public:
  // Whether `node` keeps rows apart, where some input of it has rows.
  bool KeepsRows(const ov::Node& node) const {
    for (const auto& output : node.outputs()) {
      if (!HasRows(output)) return false;
    }
    if (ov::is_type<ov::op::v0::Result>(&node) || ov::is_type<ov::op::v0::Convert>(&node) ||
        ov::is_type<ov::op::util::UnaryElementwiseArithmetic>(&node)) {
      return true;
    }
    if (const auto* binary = ov::as_type<const ov::op::util::BinaryElementwiseArithmetic>(&node)) {
      return KeepsRows(*binary);
    }
    if (ov::is_type<ov::op::v1::Reshape>(&node) || ov::is_type<ov::op::v0::Squeeze>(&node) ||
        ov::is_type<ov::op::v0::Unsqueeze>(&node)) {
      // The elements stay in order: as many of them for each row.
      return IsOfRows(node, 0) && RowElements(node.get_output_partial_shape(0)) ==
                                      RowElements(node.get_input_partial_shape(0));
    }
    if (const auto* product = ov::as_type<const ov::op::v0::MatMul>(&node)) {
      return KeepsRows(*product);
    }
    return KeepsFirstAxis(node);
  }

  bool HasInputOfRows(const ov::Node& node) const {
    for (size_t i = 0; i < node.get_input_size(); ++i) {
      if (IsOfRows(node, i)) return true;
    }
    return false;
  }

  void Add(const ov::Node& node) { rows_.insert(&node); }

 private:
  bool IsOfRows(const ov::Node& node, size_t port) const {
    return rows_.contains(node.get_input_node_ptr(port));
  }

  // A constant that is added to rows is the same for each of them.
  bool KeepsRows(const ov::op::util::BinaryElementwiseArithmetic& node) const {
    const auto broadcast = node.get_autob().m_type;
    if (broadcast != ov::op::AutoBroadcastType::NUMPY &&
        broadcast != ov::op::AutoBroadcastType::NONE) {
      return false;
    }
    const ov::PartialShape& whole = node.get_output_partial_shape(0);
    for (size_t i = 0; i < node.get_input_size(); ++i) {
      const ov::PartialShape& shape = node.get_input_partial_shape(i);
      if (IsOfRows(node, i) ? shape.size() != whole.size()
                            : shape.is_dynamic() || shape.size() > whole.size() ||
                                  (shape.size() == whole.size() && shape[0] != 1)) {
        return false;
      }
    }
    return true;
  }

  bool KeepsRows(const ov::op::v0::MatMul& node) const {
    const size_t rank = node.get_input_partial_shape(0).size();
    return IsOfRows(node, 0) && !IsOfRows(node, 1) && rank >= 2 &&
           (rank > 2 || !node.get_transpose_a()) && node.get_input_partial_shape(1).is_static() &&
           node.get_input_partial_shape(1).size() <= 2;
  }

  // Those with an axis.
  bool KeepsFirstAxis(const ov::Node& node) const {
    const auto rank = static_cast<int64_t>(node.get_output_partial_shape(0).size());
    int64_t axis = 0;
    if (const auto* softmax = ov::as_type<const ov::op::v1::Softmax>(&node)) {
      axis = static_cast<int64_t>(softmax->get_axis());
    } else if (const auto* newer = ov::as_type<const ov::op::v8::Softmax>(&node)) {
      axis = newer->get_axis();
    } else if (const auto* log = ov::as_type<const ov::op::v5::LogSoftmax>(&node)) {
      axis = log->get_axis();
    } else if (const auto* joined = ov::as_type<const ov::op::v0::Concat>(&node)) {
      axis = joined->get_axis();
      for (size_t i = 0; i < node.get_input_size(); ++i) {
        if (!IsOfRows(node, i)) return false;
      }
    }
    return axis != 0 && axis != -rank;
  }

  Rows rows_;
};

}  // namespace

bool IsRowWise(const ov::Model& model) {
  Walk walk;
  for (const auto& node : model.get_ordered_ops()) {
    if (ov::is_type<ov::op::v0::Parameter>(node)) {
      const ov::Output<const ov::Node> input = std::as_const(*node).output(0);
      if (!HasRows(input) || input.get_partial_shape()[0] != ov::Dimension()) return false;
      walk.Add(*node);
    } else if (walk.HasInputOfRows(*node)) {
      if (!walk.KeepsRows(*node)) return false;
      walk.Add(*node);
    } else if (ov::is_type<ov::op::v0::Result>(node) ||  // the same for any batch
               (node->get_input_size() == 0 && !ov::is_type<ov::op::v0::Constant>(node))) {
      return false;
    }
  }
  return model.inputs().size() > 0;
}

}  // namespace penstock::openvino
