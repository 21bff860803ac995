// What the openvino backend loads, under which names, and what it refuses and how it says so.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "backend_under_test.h"
#include "backends/openvino/openvino_backend.h"
#include "ir_writer.h"

namespace penstock::openvino {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class OpenVinoLoadTest : public testing::Test {
 protected:
  Result<std::unique_ptr<BackendModel>> Load() {
    static auto& backend = *(*OpenVinoBackend::Start()).release();
    return backend.Load(options_);
  }

  Result<std::unique_ptr<BackendModel>> Load(const IrWriter& model) {
    model.Write(options_.path);
    return Load();
  }

  void ExpectRefused(const Result<std::unique_ptr<BackendModel>>& model, StatusCode code,
                     const std::string& fragment) {
    ASSERT_FALSE(model.ok());
    EXPECT_EQ(model.status().code(), code) << model.status().ToString();
    EXPECT_THAT(std::string(model.status().message()),
                AllOf(HasSubstr("model 'm' version 2"), HasSubstr(fragment),
                      Not(HasSubstr(directory_.path())), Not(HasSubstr("src/"))));
  }

  // x + 3, with the weights in a file of their own.
  static IrWriter Weighted() {
    IrWriter model;
    model.Input("x", DataType::kFp32, Shape{-1, 1});
    model.Constant("w", DataType::kFp32, Shape{1}, std::string("\0\0\x40\x40", 4));
    model.Node("Add", {"x", "w"}, {"y"});
    model.Output("y", "y");
    return model;
  }

  TempDir directory_;
  LoadOptions options_{"m", 2, directory_.Path("model.xml"), directory_.path(), {}};
};

TEST_F(OpenVinoLoadTest, MissingWeights_AreRefused) {
  Weighted().Write(options_.path);
  std::filesystem::remove(directory_.Path("model.bin"));
  ExpectRefused(Load(), StatusCode::kInvalidArgument, "bin file cannot be found");
}

TEST_F(OpenVinoLoadTest, ShortWeights_AreRefused) {
  Weighted().Write(options_.path);
  OnnxWriter::WriteFile(directory_.Path("model.bin"), "ww");
  ExpectRefused(Load(), StatusCode::kInvalidArgument, "Incorrect weights in bin file");
}

TEST_F(OpenVinoLoadTest, DamagedGraph_IsRefused) {
  OnnxWriter::WriteFile(options_.path, "<net name=\"m\" version=\"11\"><layers><layer");
  ExpectRefused(Load(), StatusCode::kInvalidArgument, "cannot be read as OpenVINO IR");
}

TEST_F(OpenVinoLoadTest, EmptyFile_IsRefused) {
  OnnxWriter::WriteFile(options_.path, "");
  ExpectRefused(Load(), StatusCode::kInvalidArgument, "file 'model.xml' is empty");
}

TEST_F(OpenVinoLoadTest, UnknownOperator_IsNamed) {
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1});
  model.Node("Frobnicate", {"x"}, {"y"});
  model.Output("y", "y");
  ExpectRefused(Load(model), StatusCode::kUnimplemented, "operation with type: Frobnicate");
}

TEST_F(OpenVinoLoadTest, FileOfUnknownKind_IsRefusedWithTheKindsThatAreRead) {
  options_.path = directory_.Path("model.pt");
  OnnxWriter::WriteFile(options_.path, "PK");
  ExpectRefused(Load(), StatusCode::kInvalidArgument,
                "is of no format that the openvino backend reads; it reads *.xml (OpenVINO IR), "
                "*.onnx (ONNX), *.pb (TensorFlow), *.tflite (TensorFlow Lite), *.pdmodel (Paddle), "
                "and directories that hold saved_model.pb");
}

TEST_F(OpenVinoLoadTest, FormatIsToldByTheNameAlone) {
  Weighted().Write(directory_.Path("ir.xml"));
  for (const char* name : {"model.pb", "model.tflite", "model.pdmodel", "model.onnx"}) {
    options_.path = directory_.Path(name);
    std::filesystem::copy_file(directory_.Path("ir.xml"), options_.path);
    const auto loaded = Load();
    ASSERT_FALSE(loaded.ok()) << name;
    EXPECT_EQ(loaded.status().code(), StatusCode::kInvalidArgument)
        << name << loaded.status().ToString();
  }
}

TEST_F(OpenVinoLoadTest, DirectoryWithoutSavedModel_IsNotFound) {
  options_.path = directory_.Path("model.saved_model");
  std::filesystem::create_directory(options_.path);
  ExpectRefused(Load(), StatusCode::kNotFound, "file 'saved_model.pb' cannot be opened");
}

TEST_F(OpenVinoLoadTest, WeightsThatLeadOutOfTheDirectory_AreRefused) {
  const TempDir elsewhere;
  Weighted().Write(options_.path);
  std::filesystem::rename(directory_.Path("model.bin"), elsewhere.Path("model.bin"));
  std::filesystem::create_symlink(elsewhere.Path("model.bin"), directory_.Path("model.bin"));
  ExpectRefused(Load(), StatusCode::kInvalidArgument,
                "file 'model.bin' leads out of the model's directory by a symbolic link");
}

TEST_F(OpenVinoLoadTest, LinkedModel_ReadsTheWeightsBesideItsTarget) {
  const TempDir elsewhere;
  Weighted().Write(elsewhere.Path("model.xml"));
  for (const char* name : {"model.xml", "model.bin"}) {
    std::filesystem::create_symlink(elsewhere.Path(name), directory_.Path(name));
  }
  const auto model = Load();
  EXPECT_TRUE(model.ok()) << model.status().ToString();
}

TEST_F(OpenVinoLoadTest, SavedModelWithALinkOutOfIt_IsRefused) {
  const TempDir elsewhere;
  options_.path = directory_.Path("model.saved_model");
  std::filesystem::create_directory(options_.path);
  OnnxWriter::WriteFile(options_.path + "/saved_model.pb", "graph");
  OnnxWriter::WriteFile(elsewhere.Path("secret"), "secret");
  std::filesystem::create_symlink(elsewhere.Path("secret"), options_.path + "/variables");
  ExpectRefused(Load(), StatusCode::kInvalidArgument, "file 'variables' leads out");
}

TEST_F(OpenVinoLoadTest, OnnxExternalDataOutsideTheDirectory_IsRefused) {
  options_.path = directory_.Path("model.onnx");
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Initializer("w", DataType::kFp32, {1}, "", "../w.bin");
  model.Node("Add", {"x", "w"}, {"y"});
  model.Output("y", DataType::kFp32, {"n"});
  model.Write(options_.path);
  ExpectRefused(Load(), StatusCode::kInvalidArgument,
                "external data '../w.bin' leads out of the model's directory");
}

TEST_F(OpenVinoLoadTest, BadParameter_IsRefusedWithTheModel) {
  options_.parameters = {{"NUM_STREAMS", "many"}};
  ExpectRefused(Load(Weighted()), StatusCode::kInvalidArgument,
                "parameter 'NUM_STREAMS' of the openvino backend");
}

TEST_F(OpenVinoLoadTest, OutputWithoutAName_GoesByItsLayers) {
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1});
  model.Node("Relu", {"x"}, {"relu"});
  model.Output("", "relu");
  const auto loaded = Load(model);
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  EXPECT_EQ((*loaded)->signature().outputs[0].name, "relu");
}

TEST_F(OpenVinoLoadTest, MoreDimensionsThanSupported_AreRefused) {
  IrWriter model;
  Shape dims;
  while (dims.rank() < kMaxRank) dims.Append(1);
  model.Input("x", DataType::kFp32, dims);
  model.Constant("axis", DataType::kInt64, Shape{1}, std::string(8, '\0'));
  model.Node("Unsqueeze", {"x", "axis"}, {"y"});
  model.Output("y", "y");
  ExpectRefused(Load(model), StatusCode::kUnimplemented,
                "output 'y' has 17 dimensions, at most 16");
}

}  // namespace
}  // namespace penstock::openvino
