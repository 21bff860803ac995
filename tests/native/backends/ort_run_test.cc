// What is the ONNX Runtime backend's own when it runs: classical models, optional inputs, outputs
// whose shape is not known, or not as the file says.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "backend_under_test.h"
#include "backends/onnxruntime/ort_model.h"
#include "onnx_writer.h"

namespace penstock::ort {
namespace {

using testing::ElementsAre;
using testing::FloatNear;

class OrtRunTest : public testing::Test {
 protected:
  void Load(const OnnxWriter& model) {
    model.Write(options_.path);
    const auto library = OrtLibrary::Open({PENSTOCK_ONNXRUNTIME_LIBRARY, 0});
    auto loaded = OrtModel::Load(**library, options_, *ParseSettings(options_.parameters));
    ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
    model_ = *std::move(loaded);
    auto instance = model_->CreateInstance({"m_0"});
    ASSERT_TRUE(instance.ok());
    instance_ = *std::move(instance);
  }

  // Runs with one FP32 input.
  std::vector<BatchOutput> Run(const std::vector<float>& x, const Shape& shape,
                               const std::vector<size_t>& wanted) {
    const auto data = BytesOf(x);
    auto outputs = RunBatch(*instance_, {{"x", DataType::kFp32, shape, data}}, wanted);
    EXPECT_TRUE(outputs.ok()) << outputs.status().ToString();
    return outputs.ok() ? *std::move(outputs) : std::vector<BatchOutput>(wanted.size());
  }

  template <typename T>
  static std::vector<T> Values(const BatchOutput& output) {
    std::vector<T> values(output.data.size() / sizeof(T));
    std::memcpy(values.data(), output.data.data(), output.data.size());
    return values;
  }

  TempDir directory_;
  LoadOptions options_{"m", 1, directory_.Path("model.onnx"), directory_.path(), {}};
  std::unique_ptr<BackendModel> model_;
  std::unique_ptr<BackendInstance> instance_;
};

// As scikit-learn's logistic regression is exported: ai.onnx.ml, dimensions without names.
OnnxWriter Classifier(const std::vector<std::string>& labels) {
  OnnxWriter model;
  std::string label_attribute = OnnxWriter::Ints("classlabels_ints", {10, 20});
  if (!labels.empty()) {
    label_attribute.clear();
    protozero::pbf_writer writer(label_attribute);
    writer.add_string(1, "classlabels_strings");
    for (const auto& label : labels) writer.add_string(9, label);
    writer.add_enum(20, 8);
  }
  model.Input("x", DataType::kFp32, {"", "2"});
  model.Node("LinearClassifier", {"x"}, {"label", "scores"},
             {OnnxWriter::Floats("coefficients", {1, 0, 0, 1}),
              OnnxWriter::Floats("intercepts", {0, 0}), label_attribute,
              OnnxWriter::Text("post_transform", "NONE"), OnnxWriter::Int("multi_class", 1)},
             "ai.onnx.ml");
  model.Node("Normalizer", {"scores"}, {"probabilities"}, {OnnxWriter::Text("norm", "L1")},
             "ai.onnx.ml");
  model.Output("label", labels.empty() ? DataType::kInt64 : DataType::kBytes, {""});
  model.Output("probabilities", DataType::kFp32, {"", "2"});
  return model;
}

TEST_F(OrtRunTest, ClassicalModel_GivesLabelsAndProbabilities) {
  Load(Classifier({}));
  EXPECT_EQ(model_->signature().outputs[0].dims, (Shape{-1}));
  EXPECT_EQ(model_->signature().outputs[1].dims, (Shape{-1, 2}));
  const auto outputs = Run({3, 1, 1, 4, 5, 5}, Shape{3, 2}, {0, 1});
  EXPECT_EQ(outputs[0].shape, (Shape{3}));
  EXPECT_THAT(Values<int64_t>(outputs[0]), ElementsAre(10, 20, 10));
  EXPECT_THAT(Values<float>(outputs[1]),
              ElementsAre(0.75f, 0.25f, FloatNear(0.2f, 1e-6), FloatNear(0.8f, 1e-6), 0.5f, 0.5f));
}

TEST_F(OrtRunTest, StringLabels_ComeInWireLayout) {
  Load(Classifier({"no", "certainly"}));
  EXPECT_EQ(model_->signature().outputs[0].dtype, DataType::kBytes);
  const auto outputs = Run({3, 1, 1, 4}, Shape{2, 2}, {0});
  const auto expected = WireBytes({"no", "certainly"});
  EXPECT_EQ(Values<uint8_t>(outputs[0]), expected);
}

TEST_F(OrtRunTest, OutputOfUnknownSize_IsTakenAsItComes) {
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Node("NonZero", {"x"}, {"where"});
  model.Output("where", DataType::kInt64, {"1", "found"});
  Load(model);
  EXPECT_EQ(model_->signature().outputs[0].dims, (Shape{1, -1}));
  auto outputs = Run({0, 5, 0, 7}, Shape{4}, {0});
  EXPECT_EQ(outputs[0].shape, (Shape{1, 2}));
  instance_.reset();
  model_.reset();  // the output lies in the engine's memory, which it keeps
  EXPECT_THAT(Values<int64_t>(outputs[0]), ElementsAre(1, 3));
}

TEST_F(OrtRunTest, OutputWithoutRank_IsTakenAsItComes) {
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n", "2"});
  model.Input("shape", DataType::kInt64, {"rank"});
  model.Node("Reshape", {"x", "shape"}, {"y"});
  model.OutputWithoutShape("y", DataType::kFp32);
  Load(model);
  const auto x = BytesOf(std::vector<float>{1, 2, 3, 4});
  const auto shape = BytesOf(std::vector<int64_t>{4, 1, 1});
  const auto outputs = RunBatch(
      *instance_,
      {{"x", DataType::kFp32, Shape{2, 2}, x}, {"shape", DataType::kInt64, Shape{3}, shape}}, {0});
  ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
  EXPECT_EQ(outputs->front().shape, (Shape{4, 1, 1}));
}

// The file says the output has as many rows as the input; the model halves them.
TEST_F(OrtRunTest, OutputThatBreaksItsPromisedShape_IsStillRight) {
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Initializer(
      "shape", DataType::kInt64, {2},
      std::string("\x02\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 16));  // 2, -1
  model.Node("Reshape", {"x", "shape"}, {"halves"});
  model.Node("ReduceSum", {"halves", "axis"}, {"y"}, {OnnxWriter::Int("keepdims", 0)});
  model.Initializer("axis", DataType::kInt64, {1}, std::string(8, '\0'));
  model.Output("y", DataType::kFp32, {"n"});
  Load(model);
  for (int run = 0; run < 2; ++run) {
    const auto outputs = Run({1, 2, 3, 4}, Shape{4}, {0});
    EXPECT_EQ(outputs[0].shape, (Shape{2}));
    EXPECT_THAT(Values<float>(outputs[0]), ElementsAre(4, 6));
  }
}

// Outputs that no node computes: an input, an initialiser, and one value under two names. Run()
// frees its input before the outputs are read.
TEST_F(OrtRunTest, OutputThatNoNodeComputes_IsRight) {
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Initializer("w", DataType::kFp32, {1}, std::string("\0\0\x80\x3f", 4));  // 1
  model.Node("Add", {"x", "w"}, {"y"});
  model.Node("Identity", {"y"}, {"again"});
  model.Node("Identity", {"x"}, {"echo"});
  for (const char* name : {"x", "y", "again", "echo"}) model.Output(name, DataType::kFp32, {"n"});
  model.Output("w", DataType::kFp32, {"1"});
  Load(model);
  for (int run = 0; run < 3; ++run) {
    const auto outputs = Run({1, 2}, Shape{2}, {0, 1, 2, 3, 4});
    EXPECT_THAT(Values<float>(outputs[0]), ElementsAre(1, 2));
    EXPECT_THAT(Values<float>(outputs[1]), ElementsAre(2, 3));
    EXPECT_THAT(Values<float>(outputs[2]), ElementsAre(2, 3));
    EXPECT_THAT(Values<float>(outputs[3]), ElementsAre(1, 2));
    EXPECT_THAT(Values<float>(outputs[4]), ElementsAre(1));
  }
}

TEST_F(OrtRunTest, InitialiserThatIsAnInput_IsOptional) {
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Input("w", DataType::kFp32, {"1"});
  model.Initializer("w", DataType::kFp32, {1}, std::string("\0\0\x80\x3f", 4));  // 1
  model.Node("Add", {"x", "w"}, {"y"});
  model.Output("y", DataType::kFp32, {"n"});
  Load(model);
  ASSERT_EQ(model_->signature().inputs.size(), 2u);
  EXPECT_TRUE(model_->signature().inputs[1].is_optional);
  EXPECT_THAT(Values<float>(Run({1, 2}, Shape{2}, {0})[0]), ElementsAre(2, 3));
  const auto x = BytesOf(std::vector<float>{1, 2});
  const auto w = BytesOf(std::vector<float>{10});
  const auto outputs = RunBatch(
      *instance_, {{"x", DataType::kFp32, Shape{2}, x}, {"w", DataType::kFp32, Shape{1}, w}}, {0});
  ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
  EXPECT_THAT(Values<float>(outputs->front()), ElementsAre(11, 12));
}

TEST_F(OrtRunTest, ExternalData_IsUsedReadAndMapped) {
  OnnxWriter::WriteFile(directory_.Path("w.bin"), std::string("\0\0\x20\x41", 4));  // 10
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Initializer("w", DataType::kFp32, {1}, "", "w.bin");
  model.Node("Add", {"x", "w"}, {"y"});
  model.Output("y", DataType::kFp32, {"n"});
  Load(model);
  EXPECT_THAT(Values<float>(Run({1, 2}, Shape{2}, {0})[0]), ElementsAre(11, 12));
  options_.parameters = {{"map_external_data", "1"}};
  Load(model);
  EXPECT_THAT(Values<float>(Run({1, 2}, Shape{2}, {0})[0]), ElementsAre(11, 12));
}

TEST_F(OrtRunTest, ExternalDataCutShortWhileItIsServed_ChangesNothing) {
  constexpr int64_t kCount = 1 << 16;  // more than a page
  OnnxWriter::WriteFile(directory_.Path("w.bin"), std::string(kCount * 4, '\0'));
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Initializer("w", DataType::kFp32, {kCount}, "", "w.bin");
  model.Node("Add", {"x", "w"}, {"y"});
  model.Output("y", DataType::kFp32, {"n"});
  Load(model);
  OnnxWriter::WriteFile(directory_.Path("w.bin"), "");
  const auto values = Values<float>(Run(std::vector<float>(kCount, 3), Shape{kCount}, {0})[0]);
  EXPECT_THAT(values, testing::Each(3));
}

class HostileBytesTest : public OrtRunTest,
                         public testing::WithParamInterface<std::vector<uint8_t>> {};

TEST_P(HostileBytesTest, AreRefusedAndTheNextBatchRuns) {
  OnnxWriter model;
  model.Input("x", DataType::kBytes, {"n"});
  model.Node("Identity", {"x"}, {"y"});
  model.Output("y", DataType::kBytes, {"n"});
  Load(model);
  const auto bad = RunBatch(*instance_, {{"x", DataType::kBytes, Shape{2}, GetParam()}}, {0});
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().code(), StatusCode::kInvalidArgument);
  const auto good = WireBytes({"a", "bc"});
  EXPECT_TRUE(RunBatch(*instance_, {{"x", DataType::kBytes, Shape{2}, good}}, {0}).ok());
}

INSTANTIATE_TEST_SUITE_P(Bytes, HostileBytesTest,
                         testing::Values(std::vector<uint8_t>{}, std::vector<uint8_t>{1, 0, 0},
                                         std::vector<uint8_t>{1, 0, 0, 0, 'a'},
                                         std::vector<uint8_t>{0xff, 0xff, 0xff, 0xff, 'a', 0, 0, 0,
                                                              0},
                                         std::vector<uint8_t>{0, 0, 0, 0, 0, 0, 0, 0, 'x'}));

}  // namespace
}  // namespace penstock::ort
