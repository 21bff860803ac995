#include "backends/openvino/signature.h"

#include <algorithm>
#include <array>
#include <openvino/core/dimension.hpp>
#include <openvino/op/parameter.hpp>
#include <openvino/op/result.hpp>
#include <string_view>
#include <utility>

#include "base/strcat.h"

namespace penstock::openvino {
namespace {

constexpr std::array<std::pair<ov::element::Type_t, DataType>, 14> kTypes = {{
    {ov::element::Type_t::boolean, DataType::kBool},
    {ov::element::Type_t::u8, DataType::kUint8},
    {ov::element::Type_t::u16, DataType::kUint16},
    {ov::element::Type_t::u32, DataType::kUint32},
    {ov::element::Type_t::u64, DataType::kUint64},
    {ov::element::Type_t::i8, DataType::kInt8},
    {ov::element::Type_t::i16, DataType::kInt16},
    {ov::element::Type_t::i32, DataType::kInt32},
    {ov::element::Type_t::i64, DataType::kInt64},
    {ov::element::Type_t::f16, DataType::kFp16},
    {ov::element::Type_t::bf16, DataType::kBf16},
    {ov::element::Type_t::f32, DataType::kFp32},
    {ov::element::Type_t::f64, DataType::kFp64},
    {ov::element::Type_t::string, DataType::kBytes},
}};

using Names = std::vector<std::string>;

// The tensor's names, shortest first: "x" before "x:0", whatever order the engine keeps them in.
Names SortedNames(const ov::descriptor::Tensor& tensor) {
  Names names(tensor.get_names().begin(), tensor.get_names().end());
  std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
    return std::pair(a.size(), std::string_view(a)) < std::pair(b.size(), std::string_view(b));
  });
  return names;
}

bool Contains(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string InputName(const ov::op::v0::Parameter& parameter) {
  const Names names = SortedNames(parameter.get_output_tensor(0));
  const std::string& own = parameter.get_friendly_name();
  return names.empty() || Contains(names, own) ? own : names.front();
}

std::string OutputName(const ov::op::v0::Result& result, const Names& taken) {
  for (const std::string& name : SortedNames(result.get_output_tensor(0))) {
    if (!Contains(taken, name)) return name;
  }
  const std::string& producer = result.get_input_node_ptr(0)->get_friendly_name();
  return Contains(taken, producer) ? result.get_friendly_name() : producer;
}

class Reader {
 public:
  explicit Reader(const std::string& label) : label_(label) {}

  Result<TensorSpec> Read(const std::string& kind, std::string name, const ov::element::Type& type,
                          const ov::PartialShape& shape) const {
    const std::string what = StrCat(label_, ": ", kind, " '", name, "' ");
    TensorSpec spec;
    spec.dtype = FromElementType(type);
    if (spec.dtype == DataType::kInvalid) {
      return Unimplemented(StrCat(what, "is of type ", type.to_string(),
                                  ", which the inference protocol does not have"));
    }
    if (shape.rank().is_dynamic()) {
      return Unimplemented(what + "has no shape in the model file");
    }
    if (shape.size() > kMaxRank) {
      return Unimplemented(
          StrCat(what, "has ", shape.size(), " dimensions, at most ", kMaxRank, " are supported"));
    }
    for (const ov::Dimension& dim : shape) {
      spec.dims.Append(dim.is_static() ? dim.get_length() : -1);
    }
    spec.name = std::move(name);
    return spec;
  }

 private:
  const std::string& label_;
};

}  // namespace

DataType FromElementType(const ov::element::Type& type) {
  for (const auto& [engine, ours] : kTypes) {
    if (type == engine) return ours;
  }
  return DataType::kInvalid;
}

Result<GraphSignature> ReadSignature(const ov::Model& model, const std::string& label) {
  GraphSignature read;
  const Reader reader(label);
  Names taken;
  for (const auto& parameter : model.get_parameters()) {
    taken.push_back(InputName(*parameter));
    read.input_types.push_back(parameter->get_element_type());
    PENSTOCK_ASSIGN_OR_RETURN(TensorSpec spec,
                              reader.Read("input", taken.back(), parameter->get_element_type(),
                                          parameter->get_partial_shape()));
    read.signature.inputs.push_back(std::move(spec));
  }
  for (const auto& result : model.get_results()) {
    taken.push_back(OutputName(*result, taken));
    PENSTOCK_ASSIGN_OR_RETURN(
        TensorSpec spec, reader.Read("output", taken.back(), result->get_output_element_type(0),
                                     result->get_output_partial_shape(0)));
    read.signature.outputs.push_back(std::move(spec));
  }
  return read;
}

}  // namespace penstock::openvino
