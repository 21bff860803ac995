// Positions that a client chooses: the engine must refuse them or do no harm, and where it does
// neither the model is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "backend_under_test.h"
#include "backends/openvino/openvino_backend.h"
#include "ir_writer.h"

namespace penstock::openvino {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string Raw(const std::vector<int64_t>& values) {
  const auto bytes = BytesOf(values);
  return std::string(bytes.begin(), bytes.end());
}

// A node of a graph with the input "x" FP32 [4,4], the input "i", and some constants.
struct Case {
  std::string type;
  std::string opset;
  Shape index_shape;
  DataType index_type;
  std::vector<std::string> inputs;  // of the node
  std::string attributes = {};
};

class OpenVinoIndexTest : public testing::TestWithParam<Case> {
 protected:
  static IrWriter ModelOf(const Case& given) {
    IrWriter model;
    model.Input("x", DataType::kFp32, Shape{4, 4});
    model.Input("i", given.index_type, given.index_shape);
    model.Constant("zero", DataType::kInt64, Shape{}, Raw({0}));
    model.Constant("four", DataType::kInt64, Shape{}, Raw({4}));
    model.Constant("zeros", DataType::kInt64, Shape{2}, Raw({0, 0}));
    model.Constant("ones", DataType::kInt64, Shape{2}, Raw({1, 1}));
    model.Constant("fours", DataType::kInt64, Shape{2}, Raw({4, 4}));
    model.Constant("places", DataType::kInt64, Shape{3}, Raw({0, 1, 2}));
    std::vector<float> row(8, 1.0f);
    const auto rows = BytesOf(row);
    model.Constant("rows", DataType::kFp32, Shape{2, 4}, std::string(rows.begin(), rows.end()));
    const auto one = BytesOf(std::vector<float>{1});
    model.Constant("one", DataType::kFp32, Shape{}, std::string(one.begin(), one.end()));
    std::vector<std::string> outputs = {"y"};
    if (given.type == "TopK") outputs.push_back("places_of_y");
    model.Node(given.type, given.inputs, outputs, given.attributes, given.opset);
    model.Node("Convert", {"y"}, {"floats"}, IrWriter::Attribute("destination_type", "f32"));
    model.Output("y", "floats");
    return model;
  }

  Result<std::unique_ptr<BackendModel>> Load(const IrWriter& model) {
    static auto& backend = *(*OpenVinoBackend::Start()).release();
    model.Write(options_.path);
    return backend.Load(options_);
  }

  TempDir directory_;
  LoadOptions options_ = [this] {
    LoadOptions options;
    options.model_name = "m";
    options.version = 1;
    options.model_directory = directory_.path();
    options.path = directory_.Path("model.xml");
    return options;
  }();
};

class RefusedIndexTest : public OpenVinoIndexTest {};

TEST_P(RefusedIndexTest, IsRefusedByItsOperatorsName) {
  const auto loaded = Load(ModelOf(GetParam()));
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), StatusCode::kUnimplemented) << loaded.status().ToString();
  EXPECT_THAT(
      std::string(loaded.status().message()),
      AllOf(HasSubstr("model 'm' version 1: operator " + GetParam().type + " 'y' takes its"),
            HasSubstr("does not check them")));
}

constexpr const char* kMasks =
    " begin_mask=\"0,0\" end_mask=\"0,0\" new_axis_mask=\"\" shrink_axis_mask=\"\" "
    "ellipsis_mask=\"\"";
constexpr const char* kLastAxis = " axis=\"-1\"";
constexpr const char* kGreatest =
    " axis=\"1\" mode=\"max\" sort=\"value\" index_element_type=\"i32\"";

INSTANTIATE_TEST_SUITE_P(
    Operators, RefusedIndexTest,
    testing::Values(
        Case{"GatherND", "opset8", {2, 2}, DataType::kInt64, {"x", "i"}, " batch_dims=\"0\""},
        Case{"ScatterElementsUpdate",
             "opset3",
             {2, 4},
             DataType::kInt64,
             {"x", "i", "rows", "zero"}},
        Case{"Slice", "opset8", {2}, DataType::kInt64, {"x", "zeros", "fours", "ones", "i"}},
        Case{"StridedSlice", "opset1", {2}, DataType::kInt64, {"x", "zeros", "fours", "i"}, kMasks},
        Case{
            "Range", "opset4", {}, DataType::kInt64, {"zero", "four", "i"}, " output_type=\"i64\""},
        Case{"Roll", "opset7", {2}, DataType::kInt64, {"x", "ones", "i"}},
        Case{"SliceScatter", "opset15", {2}, DataType::kInt64, {"x", "rows", "i", "fours", "ones"}},
        Case{"EmbeddingBagOffsetsSum", "opset3", {2}, DataType::kInt64, {"x", "places", "i"}},
        // The second time they forget that they have refused it.
        Case{"Gather", "opset8", {}, DataType::kInt64, {"x", "places", "i"}, " batch_dims=\"0\""},
        Case{"OneHot", "opset1", {}, DataType::kInt64, {"places", "i", "one", "one"}, kLastAxis},
        Case{"Pad", "opset1", {2}, DataType::kInt64, {"x", "i", "ones"}, " pad_mode=\"constant\""},
        Case{"Reshape", "opset1", {2}, DataType::kInt64, {"x", "i"}, " special_zero=\"true\""},
        Case{"Squeeze", "opset1", {1}, DataType::kInt64, {"x", "i"}},
        Case{"TopK", "opset3", {}, DataType::kInt64, {"x", "i"}, kGreatest}),
    [](const auto& info) { return info.param.type + "_" + std::to_string(info.index); });

// Shapes are looked at before a batch runs.
TEST_F(OpenVinoIndexTest, PatternMadeOfShapes_IsTaken) {
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1, 4});
  model.Input("like", DataType::kFp32, Shape{-1, 2});
  model.Node("ShapeOf", {"like"}, {"pattern"}, " output_type=\"i64\"", "opset3");
  model.Node("Reshape", {"x", "pattern"}, {"y"}, " special_zero=\"false\"");
  model.Output("y", "y");
  const auto loaded = Load(model);
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  const auto instance = *(*loaded)->CreateInstance({"m_0"});
  const auto run = [&](int64_t rows) {
    const auto x = BytesOf(std::vector<float>(16, 2.0f));
    const auto like = BytesOf(std::vector<float>(static_cast<size_t>(rows) * 2, 0.0f));
    return RunBatch(
        *instance,
        {{"x", DataType::kFp32, Shape{4, 4}, x}, {"like", DataType::kFp32, Shape{rows, 2}, like}},
        {0});
  };
  ASSERT_TRUE(run(8).ok());
  for (int turn = 0; turn < 3; ++turn) EXPECT_FALSE(run(7).ok());
  const auto outputs = run(8);
  ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
  EXPECT_EQ(outputs->front().shape, (Shape{8, 2}));
}

class CheckedIndexTest : public OpenVinoIndexTest {};

TEST_P(CheckedIndexTest, OutOfRange_IsAnErrorOrHarmless) {
  const Case& given = GetParam();
  const auto loaded = Load(ModelOf(given));
  ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
  const auto instance = *(*loaded)->CreateInstance({"m_0"});
  const auto x = BytesOf(std::vector<float>(16, 2.0f));
  for (const int64_t index :
       {int64_t{0}, int64_t{4}, int64_t{5}, int64_t{17}, int64_t{5000}, int64_t{100'000'000},
        int64_t{INT32_MAX}, int64_t{-1}, int64_t{-5}, int64_t{-17}, int64_t{-5000},
        int64_t{-100'000'000}, int64_t{INT32_MIN}}) {
    std::vector<int64_t> indices(static_cast<size_t>(*given.index_shape.NumElements()), 0);
    indices.back() = index;
    const auto i = BytesOf(indices);
    const auto run = [&] {
      return RunBatch(
          *instance,
          {{"x", DataType::kFp32, Shape{4, 4}, x}, {"i", given.index_type, given.index_shape, i}},
          {0});
    };
    const auto outputs = run();
    EXPECT_EQ(run().ok(), outputs.ok()) << index;
    if (!outputs.ok()) continue;
    const Buffer& data = outputs->front().data;
    for (size_t at = 0; at + sizeof(float) <= data.size(); at += sizeof(float)) {
      float value = 0;
      std::memcpy(&value, data.data() + at, sizeof value);
      ASSERT_TRUE(value == 0 || value == 1 || value == 2 || value == 4) << index << " at " << at;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Operators, CheckedIndexTest,
    testing::Values(
        Case{"Gather", "opset8", {2}, DataType::kInt64, {"x", "i", "zero"}, " batch_dims=\"0\""},
        Case{"GatherElements", "opset6", {4, 4}, DataType::kInt64, {"x", "i"}, " axis=\"0\""},
        Case{"ScatterNDUpdate", "opset4", {2, 1}, DataType::kInt64, {"x", "i", "rows"}},
        Case{"ScatterUpdate", "opset3", {2}, DataType::kInt64, {"x", "i", "rows", "zero"}},
        Case{"EmbeddingBagPackedSum", "opset3", {3, 2}, DataType::kInt64, {"x", "i"}}),
    [](const auto& info) { return info.param.type; });

// A state begins as a constant, and is then what requests have made it.
TEST_F(OpenVinoIndexTest, UncheckedOperatorThatTakesAState_IsRefused) {
  const std::string variable = IrWriter::Attribute("variable_id", "v");
  const std::string typed = variable + IrWriter::Attribute("variable_type", "i64") +
                            IrWriter::Attribute("variable_shape", "2,2");
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{4, 4});
  model.Input("i", DataType::kInt64, Shape{2, 2});
  model.Constant("start", DataType::kInt64, Shape{2, 2}, Raw({0, 0, 0, 0}));
  model.Node("ReadValue", {"start"}, {"state"}, typed, "opset6");
  model.Node("Assign", {"i"}, {"kept"}, variable, "opset6");
  model.Node("GatherND", {"x", "state"}, {"y"}, " batch_dims=\"0\"", "opset8");
  model.Output("y", "y");
  const Status status = Load(model).status();
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented) << status.ToString();
  EXPECT_THAT(std::string(status.message()), HasSubstr("operator GatherND 'y' takes its"));
}

TEST_F(OpenVinoIndexTest, ConstantThatABranchIsGiven_IsAConstantThere) {
  OnnxWriter branch;
  branch.Node("GatherND", {"x", "k"}, {"y"});
  branch.Output("y", DataType::kFp32, {"2"});
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"4", "4"});
  model.Input("c", DataType::kBool, {});
  model.Initializer("k", DataType::kInt64, {2, 2}, Raw({0, 1, 2, 3}));
  model.Node("If", {"c"}, {"z"},
             {OnnxWriter::Graph("then_branch", branch), OnnxWriter::Graph("else_branch", branch)});
  model.Output("z", DataType::kFp32, {"2"});
  options_.path = directory_.Path("model.onnx");
  model.Write(options_.path);
  static auto& backend = *(*OpenVinoBackend::Start()).release();
  const Status status = backend.Load(options_).status();
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST_F(OpenVinoIndexTest, UncheckedOperatorWithinAnIf_IsFoundToo) {
  OnnxWriter branch;
  branch.Node("GatherND", {"x", "i"}, {"y"});
  branch.Output("y", DataType::kFp32, {"2"});
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"4", "4"});
  model.Input("i", DataType::kInt64, {"2", "2"});
  model.Input("c", DataType::kBool, {});
  model.Node("If", {"c"}, {"z"},
             {OnnxWriter::Graph("then_branch", branch), OnnxWriter::Graph("else_branch", branch)});
  model.Output("z", DataType::kFp32, {"2"});
  options_.path = directory_.Path("model.onnx");
  model.Write(options_.path);
  static auto& backend = *(*OpenVinoBackend::Start()).release();
  const Status status = backend.Load(options_).status();
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented) << status.ToString();
  EXPECT_THAT(std::string(status.message()), HasSubstr("operator GatherND"));
}

}  // namespace
}  // namespace penstock::openvino
