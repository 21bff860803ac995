#include "backend_under_test.h"

#include <stdlib.h>

#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>

#include "backends/registry.h"
#include "ir_writer.h"
#include "onnx_writer.h"
#include "testing/fixture_backend.h"

namespace penstock {
namespace {

std::string DimsText(const Shape& dims) {
  std::string text;
  for (const int64_t dim : dims) text += (text.empty() ? "" : ",") + std::to_string(dim);
  return text;
}

BackendUnderTest Fixture() {
  BackendUnderTest row;
  row.name = "fixture";
  row.open = []() -> Result<Backend*> {
    static auto& backend = *MakeFixtureBackend().release();
    return &backend;
  };
  row.model_filename = "model.fixture";
  row.write_identity = [](const std::string& path, DataType dtype, const Shape& dims) {
    std::ofstream(path) << "kind = identity\ndatatype = " << DataTypeName(dtype)
                        << "\ndims = " << DimsText(dims) << "\n";
  };
  row.write_simple = [](const std::string& path) { std::ofstream(path) << "kind = simple\n"; };
  row.write_picky = [](const std::string& path) {
    std::ofstream(path) << "kind = identity\nfail_rows = 3\n";
  };
  row.bad_shape = Shape{3, 3};
  row.good_shape = Shape{2, 3};
  return row;
}

OnnxWriter::Dims OnnxDims(const Shape& dims) {
  OnnxWriter::Dims names;
  for (size_t i = 0; i < dims.rank(); ++i) {
    names.push_back(dims[i] < 0 ? "d" + std::to_string(i) : std::to_string(dims[i]));
  }
  return names;
}

// Not zeros: an engine takes out an addition of nothing.
[[maybe_unused]] std::string Threes() {
  const std::vector<uint8_t> bytes = BytesOf(std::vector<float>{3, 3, 3});
  return std::string(bytes.begin(), bytes.end());
}

// What every backend that serves ONNX files is given.
[[maybe_unused]] BackendUnderTest ServesOnnx() {
  BackendUnderTest row;
  row.model_filename = "model.onnx";
  row.write_identity = [](const std::string& path, DataType dtype, const Shape& dims) {
    OnnxWriter model;
    model.Input("INPUT0", dtype, OnnxDims(dims));
    model.Output("OUTPUT0", dtype, OnnxDims(dims));
    model.Node("Identity", {"INPUT0"}, {"OUTPUT0"});
    model.Write(path);
  };
  row.write_simple = [](const std::string& path) {
    OnnxWriter model;
    for (const char* name : {"INPUT0", "INPUT1"})
      model.Input(name, DataType::kInt32, {"batch", "16"});
    for (const char* name : {"OUTPUT0", "OUTPUT1"})
      model.Output(name, DataType::kInt32, {"batch", "16"});
    model.Node("Add", {"INPUT0", "INPUT1"}, {"OUTPUT0"});
    model.Node("Sub", {"INPUT0", "INPUT1"}, {"OUTPUT1"});
    model.Write(path);
  };
  row.write_picky = [](const std::string& path) {
    OnnxWriter model;
    model.Input("INPUT0", DataType::kFp32, {"batch", "width"});
    model.Initializer("threes", DataType::kFp32, {3}, Threes());
    model.Node("Add", {"INPUT0", "threes"}, {"OUTPUT0"});
    model.Output("OUTPUT0", DataType::kFp32, {"batch", "width"});
    model.Write(path);
  };
  row.bad_shape = Shape{2, 4};
  row.good_shape = Shape{2, 3};
  return row;
}

#ifdef PENSTOCK_TEST_ORT
Result<Backend*> OpenOnnxRuntime() {
  static auto& registry = *new BackendRegistry({PENSTOCK_PLUGIN_DIRECTORY});
  registry.SetOptions("onnxruntime", {{"library", PENSTOCK_ONNXRUNTIME_LIBRARY}});
  return registry.Get("onnxruntime");
}

BackendUnderTest OnnxRuntime() {
  BackendUnderTest row = ServesOnnx();
  row.name = "onnxruntime";
  row.open = &OpenOnnxRuntime;
  return row;
}
#endif

#ifdef PENSTOCK_TEST_OPENVINO
Result<Backend*> OpenOpenVino() {
  static auto& registry = *new BackendRegistry({PENSTOCK_PLUGIN_DIRECTORY});
  registry.SetOptions("openvino", {{"library", PENSTOCK_OPENVINO_LIBRARY}});
  return registry.Get("openvino");
}

BackendUnderTest OpenVinoIr() {
  BackendUnderTest row;
  row.name = "openvino_ir";
  row.open = &OpenOpenVino;
  row.model_filename = "model.xml";
  row.write_identity = [](const std::string& path, DataType dtype, const Shape& dims) {
    IrWriter model;
    model.Input("INPUT0", dtype, dims);
    model.Output("OUTPUT0", "INPUT0");
    model.Write(path);
  };
  row.write_simple = [](const std::string& path) {
    IrWriter model;
    for (const char* name : {"INPUT0", "INPUT1"})
      model.Input(name, DataType::kInt32, Shape{-1, 16});
    model.Node("Add", {"INPUT0", "INPUT1"}, {"OUTPUT0"});
    model.Node("Subtract", {"INPUT0", "INPUT1"}, {"OUTPUT1"});
    for (const char* name : {"OUTPUT0", "OUTPUT1"}) model.Output(name, name);
    model.Write(path);
  };
  row.write_picky = [](const std::string& path) {
    IrWriter model;
    model.Input("INPUT0", DataType::kFp32, Shape{-1, -1});
    model.Constant("threes", DataType::kFp32, Shape{3}, Threes());
    model.Node("Add", {"INPUT0", "threes"}, {"sum"});
    model.Output("OUTPUT0", "sum");
    model.Write(path);
  };
  row.bad_shape = Shape{2, 4};
  row.good_shape = Shape{2, 3};
  return row;
}

BackendUnderTest OpenVinoOnnx() {
  BackendUnderTest row = ServesOnnx();
  row.name = "openvino_onnx";
  row.open = &OpenOpenVino;
  return row;
}
#endif

#ifdef PENSTOCK_TEST_PYTHON
Result<Backend*> OpenPython() {
  static auto& registry = *new BackendRegistry({PENSTOCK_PLUGIN_DIRECTORY});
  registry.SetOptions(
      "python", {{"interpreter", PENSTOCK_TEST_PYTHON}, {"runtime", PENSTOCK_WORKER_RUNTIME}});
  return registry.Get("python");
}

// A tensor as a class declares it: without the batch dimension, where there is one.
std::string PythonTensor(DataType dtype, const Shape& dims) {
  const bool has_batch = !dims.empty() && dims[0] < 0;
  std::string text = "('" + std::string(DataTypeName(dtype)) + "', (";
  for (size_t i = has_batch ? 1 : 0; i < dims.rank(); ++i) text += std::to_string(dims[i]) + ",";
  return text + "))";
}

void WritePython(const std::string& path, DataType dtype, const Shape& dims, int tensors,
                 const std::string& predict) {
  std::ofstream file(path);
  file << "class Model:\n";
  for (const char* kind : {"input", "output"}) {
    file << "  " << kind << "s = {";
    for (int i = 0; i < tensors; ++i) {
      const char* name = kind[0] == 'i' ? "INPUT" : "OUTPUT";
      file << "'" << name << i << "': " << PythonTensor(dtype, dims) << ",";
    }
    file << "}\n";
  }
  if (dims.empty() || dims[0] >= 0) file << "  max_batch_size = 0\n";
  file << "  def predict(self, batch):\n    x = batch['INPUT0']\n" << predict;
}

BackendUnderTest Python() {
  BackendUnderTest row;
  row.name = "python";
  row.open = &OpenPython;
  row.model_filename = "model.py";
  row.write_identity = [](const std::string& path, DataType dtype, const Shape& dims) {
    WritePython(path, dtype, dims, 1, "    return {'OUTPUT0': x}\n");
  };
  row.write_simple = [](const std::string& path) {
    WritePython(path, DataType::kInt32, Shape{-1, 16}, 2,
                "    y = batch['INPUT1']\n    return {'OUTPUT0': x + y, 'OUTPUT1': x - y}\n");
  };
  row.write_picky = [](const std::string& path) {
    WritePython(path, DataType::kFp32, Shape{-1, -1}, 1,
                "    return {'OUTPUT0': {3: x}[len(x[0])]}\n");
  };
  row.bad_shape = Shape{2, 4};
  row.good_shape = Shape{2, 3};
  return row;
}
#endif

}  // namespace

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "penstock_XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary directory");
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;  // what stays behind is the system's temporary directory's to clean
  std::filesystem::remove_all(path_, ignored);
}

const std::vector<BackendUnderTest>& BackendsUnderTest() {
  static const auto& rows = *new std::vector<BackendUnderTest>{
      Fixture(),
#ifdef PENSTOCK_TEST_ORT
      OnnxRuntime(),
#endif
#ifdef PENSTOCK_TEST_OPENVINO
      OpenVinoIr(),  OpenVinoOnnx(),
#endif
#ifdef PENSTOCK_TEST_PYTHON
      Python(),
#endif
  };
  return rows;
}

LoadOptions MakeLoadOptions(const TempDir& directory, const BackendUnderTest& backend) {
  LoadOptions options;
  options.model_name = "m";
  options.version = 7;
  options.path = directory.Path(backend.model_filename);
  options.model_directory = directory.path();
  return options;
}

std::vector<uint8_t> WireBytes(const std::vector<std::string>& texts) {
  std::vector<uint8_t> bytes;
  for (const std::string& text : texts) {
    const auto length = static_cast<uint32_t>(text.size());
    const size_t at = bytes.size();
    bytes.resize(at + sizeof(length) + text.size());
    std::memcpy(bytes.data() + at, &length, sizeof(length));
    std::memcpy(bytes.data() + at + sizeof(length), text.data(), text.size());
  }
  return bytes;
}

Result<std::vector<BatchOutput>> RunBatch(BackendInstance& instance,
                                          const std::vector<TensorView>& tensors,
                                          const std::vector<size_t>& wanted) {
  std::vector<BatchInput> inputs;
  for (size_t i = 0; i < tensors.size(); ++i) inputs.push_back({i, tensors[i]});
  std::vector<BatchOutput> outputs;
  PENSTOCK_RETURN_IF_ERROR(instance.Execute(inputs, wanted, &outputs));
  return outputs;
}

}  // namespace penstock
