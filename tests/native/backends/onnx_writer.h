// OnnxWriter: small ONNX files, written field by field, so that native tests need no Python to have
// models (those of the integration tests are made by tests/support/models). Field numbers are
// onnx.proto's.

#pragma once

#include <cstdint>
#include <fstream>
#include <protozero/pbf_reader.hpp>
#include <protozero/pbf_writer.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tensor/dtype.h"

namespace penstock {

// onnx.TensorProto.DataType of one of ours.
inline int32_t OnnxType(DataType dtype) {
  switch (dtype) {
    case DataType::kFp32:
      return 1;
    case DataType::kUint8:
      return 2;
    case DataType::kInt8:
      return 3;
    case DataType::kUint16:
      return 4;
    case DataType::kInt16:
      return 5;
    case DataType::kInt32:
      return 6;
    case DataType::kInt64:
      return 7;
    case DataType::kBytes:
      return 8;
    case DataType::kBool:
      return 9;
    case DataType::kFp16:
      return 10;
    case DataType::kFp64:
      return 11;
    case DataType::kUint32:
      return 12;
    case DataType::kUint64:
      return 13;
    case DataType::kBf16:
      return 16;
    case DataType::kInvalid:
      break;
  }
  return 0;
}

// Threading: thread-compatible. Builder calls may come in any order.
class OnnxWriter {
 public:
  using Writer = protozero::pbf_writer;
  // A dimension: "" = unknown and unnamed, digits = fixed, else a symbol.
  using Dims = std::vector<std::string>;

  void Input(const std::string& name, DataType dtype, const Dims& dims) {
    inputs_.push_back(ValueInfo(name, dtype, &dims));
  }
  void InputWithoutShape(const std::string& name, DataType dtype) {
    inputs_.push_back(ValueInfo(name, dtype, nullptr));
  }
  void Output(const std::string& name, DataType dtype, const Dims& dims) {
    outputs_.push_back(ValueInfo(name, dtype, &dims));
  }
  void OutputWithoutShape(const std::string& name, DataType dtype) {
    outputs_.push_back(ValueInfo(name, dtype, nullptr));
  }
  void SequenceOutput(const std::string& name, DataType dtype) {
    std::string element, sequence, type, value;
    Writer(element).add_message(1, TensorType(dtype, nullptr));
    Writer(sequence).add_message(1, element);
    Writer(type).add_message(4, sequence);
    Writer writer(value);
    writer.add_string(1, name);
    writer.add_message(2, type);
    outputs_.push_back(value);
  }

  // An attribute, as bytes for Node().
  static std::string Floats(const std::string& name, const std::vector<float>& values) {
    std::string attribute;
    Writer writer(attribute);
    writer.add_string(1, name);
    for (const float value : values) writer.add_float(7, value);
    writer.add_enum(20, 6);
    return attribute;
  }
  static std::string Ints(const std::string& name, const std::vector<int64_t>& values) {
    std::string attribute;
    Writer writer(attribute);
    writer.add_string(1, name);
    for (const int64_t value : values) writer.add_int64(8, value);
    writer.add_enum(20, 7);
    return attribute;
  }
  static std::string Int(const std::string& name, int64_t value) {
    std::string attribute;
    Writer writer(attribute);
    writer.add_string(1, name);
    writer.add_int64(3, value);
    writer.add_enum(20, 2);
    return attribute;
  }
  static std::string Text(const std::string& name, const std::string& value) {
    std::string attribute;
    Writer writer(attribute);
    writer.add_string(1, name);
    writer.add_string(4, value);
    writer.add_enum(20, 3);
    return attribute;
  }

  // One whose value is the graph of another model.
  static std::string Graph(const std::string& name, const OnnxWriter& inner) {
    const std::string bytes = inner.Serialize();
    protozero::pbf_reader model(bytes);
    std::string attribute;
    Writer writer(attribute);
    writer.add_string(1, name);
    if (model.next(7)) writer.add_message(6, model.get_string());
    writer.add_enum(20, 5);
    return attribute;
  }

  void Node(const std::string& type, const std::vector<std::string>& inputs,
            const std::vector<std::string>& outputs,
            const std::vector<std::string>& attributes = {}, const std::string& domain = "") {
    std::string node;
    Writer writer(node);
    for (const auto& name : inputs) writer.add_string(1, name);
    for (const auto& name : outputs) writer.add_string(2, name);
    writer.add_string(3, type + "_" + std::to_string(nodes_.size()));
    writer.add_string(4, type);
    for (const auto& attribute : attributes) writer.add_message(5, attribute);
    writer.add_string(7, domain);
    nodes_.push_back(node);
  }

  // An initialiser; with `location` its bytes are in that file instead.
  void Initializer(const std::string& name, DataType dtype, const std::vector<int64_t>& dims,
                   const std::string& data, const std::string& location = "") {
    std::string tensor;
    Writer writer(tensor);
    for (const int64_t dim : dims) writer.add_int64(1, dim);
    writer.add_int32(2, OnnxType(dtype));
    writer.add_string(8, name);
    if (location.empty()) {
      writer.add_bytes(9, data);
    } else {
      writer.add_message(13, KeyValue("location", location));
      writer.add_enum(14, 1);
    }
    initializers_.push_back(tensor);
  }

  std::string Serialize() const {
    std::string graph, model;
    Writer graph_writer(graph);
    for (const auto& node : nodes_) graph_writer.add_message(1, node);
    graph_writer.add_string(2, "graph");
    for (const auto& tensor : initializers_) graph_writer.add_message(5, tensor);
    for (const auto& input : inputs_) graph_writer.add_message(11, input);
    for (const auto& output : outputs_) graph_writer.add_message(12, output);
    Writer writer(model);
    writer.add_int64(1, 8);  // ir_version
    writer.add_message(7, graph);
    writer.add_message(8, OperatorSet("", 17));
    writer.add_message(8, OperatorSet("ai.onnx.ml", 3));
    return model;
  }

  void Write(const std::string& path) const { WriteFile(path, Serialize()); }
  static void WriteFile(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }

 private:
  static std::string KeyValue(const std::string& key, const std::string& value) {
    std::string entry;
    Writer writer(entry);
    writer.add_string(1, key);
    writer.add_string(2, value);
    return entry;
  }
  static std::string OperatorSet(const std::string& domain, int64_t version) {
    std::string set;
    Writer writer(set);
    writer.add_string(1, domain);
    writer.add_int64(2, version);
    return set;
  }
  static std::string TensorType(DataType dtype, const Dims* dims) {
    std::string type;
    Writer writer(type);
    writer.add_int32(1, OnnxType(dtype));
    if (dims == nullptr) return type;
    std::string shape;
    Writer shape_writer(shape);
    for (const std::string& dim : *dims) {
      std::string dimension;
      Writer dimension_writer(dimension);
      if (!dim.empty() && dim.find_first_not_of("0123456789") == std::string::npos) {
        dimension_writer.add_int64(1, std::stoll(dim));
      } else if (!dim.empty()) {
        dimension_writer.add_string(2, dim);
      }
      shape_writer.add_message(1, dimension);
    }
    writer.add_message(2, shape);
    return type;
  }
  static std::string ValueInfo(const std::string& name, DataType dtype, const Dims* dims) {
    std::string type, value;
    Writer(type).add_message(1, TensorType(dtype, dims));
    Writer writer(value);
    writer.add_string(1, name);
    writer.add_message(2, type);
    return value;
  }

  std::vector<std::string> inputs_, outputs_, nodes_, initializers_;
};

}  // namespace penstock
