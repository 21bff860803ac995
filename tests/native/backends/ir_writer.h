// IrWriter: makes OpenVINO IR (an .xml with the graph, a .bin with the weights) for the tests.

#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "onnx_writer.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace penstock {

// Layers in the order in which they are added; each refers to tensors by name. A test that wants
// another kind of file writes it with OnnxWriter::WriteFile.
class IrWriter {
 public:
  void Input(const std::string& name, DataType dtype, const Shape& dims) {
    const std::string data =
        Attribute("shape", Dims(dims, "?")) + Attribute("element_type", Type(dtype));
    Layer(name, "Parameter", "opset1", data, {}, {name}, dtype);
  }

  void Constant(const std::string& name, DataType dtype, const Shape& dims,
                const std::string& bytes) {
    const std::string data = Attribute("element_type", Type(dtype)) +
                             Attribute("shape", Dims(dims, "?")) +
                             Attribute("offset", std::to_string(weights_.size())) +
                             Attribute("size", std::to_string(bytes.size()));
    weights_ += bytes;
    Layer(name, "Const", "opset1", data, {}, {name}, dtype);
  }

  void Node(const std::string& type, const std::vector<std::string>& inputs,
            const std::vector<std::string>& outputs, const std::string& data = "",
            const std::string& opset = "opset1") {
    Layer(outputs.front(), type, opset, data, inputs, outputs, places_.at(inputs.front()).dtype);
  }

  // `name` may be empty: an output without a name.
  void Output(const std::string& name, const std::string& tensor) {
    Layer("result_" + name, "Result", "opset1", "", {tensor}, {}, DataType::kInvalid,
          name.empty() ? "" : Attribute("output_names", name));
  }

  // The graph to `path`, the weights beside it.
  void Write(const std::string& path) const {
    OnnxWriter::WriteFile(path, "<?xml version=\"1.0\"?>\n<net name=\"m\" version=\"11\"><layers>" +
                                    layers_ + "</layers><edges>" + edges_ +
                                    "</edges><rt_info /></net>\n");
    if (!weights_.empty()) {
      OnnxWriter::WriteFile(path.substr(0, path.rfind('.')) + ".bin", weights_);
    }
  }

  // ` key="value"`, for Node's data.
  static std::string Attribute(const std::string& key, const std::string& value) {
    return " " + key + "=\"" + value + "\"";
  }

 private:
  struct Place {
    int layer;
    size_t port;
    DataType dtype;
  };

  static std::string Type(DataType dtype) {
    static const std::map<DataType, std::string> types = {
        {DataType::kBool, "boolean"}, {DataType::kUint8, "u8"},    {DataType::kUint16, "u16"},
        {DataType::kUint32, "u32"},   {DataType::kUint64, "u64"},  {DataType::kInt8, "i8"},
        {DataType::kInt16, "i16"},    {DataType::kInt32, "i32"},   {DataType::kInt64, "i64"},
        {DataType::kFp16, "f16"},     {DataType::kBf16, "bf16"},   {DataType::kFp32, "f32"},
        {DataType::kFp64, "f64"},     {DataType::kBytes, "string"}};
    return types.at(dtype);
  }

  static std::string Dims(const Shape& dims, const std::string& any) {
    std::string text;
    for (const int64_t dim : dims) {
      text += (text.empty() ? "" : ",") + (dim < 0 ? any : std::to_string(dim));
    }
    return text;
  }

  void Layer(const std::string& name, const std::string& type, const std::string& opset,
             const std::string& data, const std::vector<std::string>& inputs,
             const std::vector<std::string>& outputs, DataType dtype,
             const std::string& attributes = "") {
    const int id = next_++;
    layers_ += "<layer" + Attribute("id", std::to_string(id)) + Attribute("name", name) +
               Attribute("type", type) + Attribute("version", opset) + attributes + ">";
    if (!data.empty()) layers_ += "<data" + data + " />";
    if (!inputs.empty()) layers_ += "<input>";
    for (size_t port = 0; port < inputs.size(); ++port) {
      layers_ += "<port" + Attribute("id", std::to_string(port)) + " />";
      const Place& from = places_.at(inputs[port]);
      edges_ += "<edge" + Attribute("from-layer", std::to_string(from.layer)) +
                Attribute("from-port", std::to_string(from.port)) +
                Attribute("to-layer", std::to_string(id)) +
                Attribute("to-port", std::to_string(port)) + " />";
    }
    if (!inputs.empty()) layers_ += "</input>";
    if (!outputs.empty()) layers_ += "<output>";
    for (size_t i = 0; i < outputs.size(); ++i) {
      const size_t port = inputs.size() + i;
      places_[outputs[i]] = {id, port, dtype};
      layers_ += "<port" + Attribute("id", std::to_string(port)) +
                 Attribute("precision", Type(dtype)) + Attribute("names", outputs[i]) + " />";
    }
    if (!outputs.empty()) layers_ += "</output>";
    layers_ += "</layer>";
  }

  int next_ = 0;
  std::map<std::string, Place> places_;
  std::string layers_;
  std::string edges_;
  std::string weights_;
};

}  // namespace penstock
