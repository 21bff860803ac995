// Batches of tiny models that run with rows behind them: which models may, and that nobody sees it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <openvino/opsets/opset13.hpp>

#include "backend_under_test.h"
#include "backends/openvino/openvino_backend.h"
#include "backends/openvino/row_wise.h"
#include "ir_writer.h"

namespace penstock::openvino {
namespace {

namespace op = ov::opset13;
using Node = std::shared_ptr<ov::Node>;
using testing::Pointwise;

Node Floats(const ov::Shape& shape) {
  return op::Constant::create(ov::element::f32, shape,
                              std::vector<float>(ov::shape_size(shape), 0.5f));
}

Node Ints(const std::vector<int64_t>& values) {
  return op::Constant::create(ov::element::i64, ov::Shape{values.size()}, values);
}

bool IsRowWiseWith(const std::function<Node(const std::shared_ptr<op::Parameter>&)>& make,
                   const ov::PartialShape& shape = {-1, 4},
                   ov::element::Type type = ov::element::f32) {
  const auto x = std::make_shared<op::Parameter>(type, shape);
  const auto y = make(x);
  return IsRowWise(ov::Model(ov::OutputVector{y}, ov::ParameterVector{x}));
}

TEST(RowWiseTest, Operators_ThatKeepRowsApart) {
  EXPECT_TRUE(IsRowWiseWith([](const auto& x) { return std::make_shared<op::Relu>(x); }));
  EXPECT_TRUE(IsRowWiseWith([](const auto& x) { return std::make_shared<op::Softmax>(x, -1); }));
  EXPECT_TRUE(IsRowWiseWith([](const auto& x) { return std::make_shared<op::LogSoftmax>(x, 1); }));
  EXPECT_TRUE(IsRowWiseWith([](const auto& x) {
    return std::make_shared<op::MatMul>(x, Floats({4, 2}), false, false);
  }));
  EXPECT_TRUE(IsRowWiseWith([](const auto& x) {
    return std::make_shared<op::MatMul>(x, Floats({2, 4}), false, true);
  }));
  EXPECT_TRUE(IsRowWiseWith([](const auto& x) { return std::make_shared<op::Add>(x, x); }));
  EXPECT_TRUE(
      IsRowWiseWith([](const auto& x) { return std::make_shared<op::Add>(Floats({4}), x); }));
  EXPECT_TRUE(IsRowWiseWith([](const auto& x) {
    return std::make_shared<op::Add>(x, Floats({1, 4}));
  }));
  EXPECT_TRUE(IsRowWiseWith([](const auto& x) {
    return std::make_shared<op::Concat>(ov::OutputVector{x, x}, 1);
  }));
  EXPECT_TRUE(IsRowWiseWith([](const auto& x) {
    return std::make_shared<op::Reshape>(x, Ints({-1, 2, 2}), false);
  }));
  EXPECT_TRUE(
      IsRowWiseWith([](const auto& x) { return std::make_shared<op::Unsqueeze>(x, Ints({1})); }));
  EXPECT_TRUE(IsRowWiseWith([](const auto& x) {  // weights in FP16
    const auto half = op::Constant::create(ov::element::f16, ov::Shape{4, 2}, {0.5f});
    return std::make_shared<op::MatMul>(x, std::make_shared<op::Convert>(half, ov::element::f32),
                                        false, false);
  }));
}

TEST(RowWiseTest, Operators_ThatMayMixRowsOrAreNotKnown) {
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) { return std::make_shared<op::Softmax>(x, 0); }));
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) { return std::make_shared<op::Softmax>(x, -2); }));
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) { return std::make_shared<op::LogSoftmax>(x, 0); }));
  EXPECT_FALSE(IsRowWiseWith(
      [](const auto& x) { return std::make_shared<op::ReduceSum>(x, Ints({0}), true); }));
  EXPECT_FALSE(
      IsRowWiseWith([](const auto& x) { return std::make_shared<op::MatMul>(x, x, true, false); }));
  EXPECT_FALSE(
      IsRowWiseWith([](const auto& x) { return std::make_shared<op::MatMul>(x, x, false, true); }));
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) {  // two rows become one
    return std::make_shared<op::Reshape>(x, Ints({-1, 8}), false);
  }));
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) {  // and one two
    return std::make_shared<op::Reshape>(x, Ints({-1, 2}), false);
  }));
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) {
    return std::make_shared<op::Concat>(ov::OutputVector{x, x}, 0);
  }));
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) {
    return std::make_shared<op::Add>(x, Floats({3, 4}));
  }));
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) {
    return std::make_shared<op::Add>(x, Floats({2, 1, 4}));
  }));
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) {  // rows of the one meet columns of the other
    return std::make_shared<op::Add>(x, std::make_shared<op::Unsqueeze>(x, Ints({1})));
  }));
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) { return std::make_shared<op::ShapeOf>(x); }));
  EXPECT_FALSE(IsRowWiseWith([](const auto& x) {
    return std::make_shared<op::Transpose>(x, Ints({1, 0}));
  }));
  EXPECT_FALSE(IsRowWiseWith([](const auto&) { return Floats({4}); }));
}

TEST(RowWiseTest, Inputs_NeedRowsOfOneSizeAndRealNumbers) {
  const auto relu = [](const auto& x) -> Node { return std::make_shared<op::Relu>(x); };
  EXPECT_FALSE(IsRowWiseWith(relu, {-1, -1}));
  EXPECT_FALSE(IsRowWiseWith(relu, {2, 4}));
  EXPECT_FALSE(IsRowWiseWith(relu, {ov::Dimension(1, 8), 4}));
  EXPECT_FALSE(IsRowWiseWith(relu, {ov::Dimension(2, -1), 4}));
  EXPECT_FALSE(IsRowWiseWith(relu, {4, -1}));
  EXPECT_FALSE(IsRowWiseWith(relu, ov::PartialShape::dynamic()));
  EXPECT_FALSE(IsRowWiseWith(relu, {}));
  EXPECT_FALSE(IsRowWiseWith(relu, {-1, 4}, ov::element::i32));
}

class OpenVinoPaddingTest : public testing::Test {
 protected:
  void Load(const IrWriter& model) {
    static auto& backend = *(*OpenVinoBackend::Start()).release();
    model.Write(options_.path);
    auto loaded = backend.Load(options_);
    ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
    model_ = *std::move(loaded);
    instance_ = *model_->CreateInstance({"m_0"});
  }

  // The first output.
  std::vector<float> Run(const std::vector<std::pair<std::string, Shape>>& inputs,
                         const std::vector<std::vector<float>>& values, Shape* shape) {
    std::vector<std::vector<uint8_t>> bytes;
    for (const auto& each : values) bytes.push_back(BytesOf(each));
    std::vector<TensorView> given;
    for (size_t i = 0; i < inputs.size(); ++i) {
      given.push_back({inputs[i].first, DataType::kFp32, inputs[i].second, bytes[i]});
    }
    const auto outputs = RunBatch(*instance_, given, {0});
    EXPECT_TRUE(outputs.ok()) << outputs.status().ToString();
    if (!outputs.ok()) return {};
    *shape = outputs->front().shape;
    std::vector<float> result(outputs->front().data.size() / sizeof(float));
    if (!result.empty()) {
      std::memcpy(result.data(), outputs->front().data.data(), outputs->front().data.size());
    }
    return result;
  }

  TempDir directory_;
  LoadOptions options_{"m", 2, directory_.Path("model.xml"), directory_.path(), {}};
  std::unique_ptr<BackendModel> model_;
  std::unique_ptr<BackendInstance> instance_;
};

TEST_F(OpenVinoPaddingTest, Batches_OfAnySizeAfterAnyOther_AreTheirOwn) {
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1, 4});
  model.Node("SoftMax", {"x"}, {"y"}, IrWriter::Attribute("axis", "1"));
  model.Output("y", "y");
  Load(model);
  for (const int64_t rows : {1, 3, 64, 1, 33, 20, 64, 65, 700, 2, 0, 5, 1024, 1}) {
    SCOPED_TRACE(rows);
    std::vector<float> x, expected;
    for (int64_t i = 0; i < rows; ++i) {
      const float hot = static_cast<float>(i % 7);
      const float sum = std::exp(hot) + 3;
      x.insert(x.end(), {hot, 0, 0, 0});
      expected.insert(expected.end(), {std::exp(hot) / sum, 1 / sum, 1 / sum, 1 / sum});
    }
    Shape shape;
    EXPECT_THAT(Run({{"x", Shape{rows, 4}}}, {x}, &shape),
                Pointwise(testing::FloatNear(1e-5f), expected));
    EXPECT_EQ(shape, (Shape{rows, 4}));
  }
}

TEST_F(OpenVinoPaddingTest, RowsLeftBehind_AreNobodys) {
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1, 2});
  model.Node("ReLU", {"x"}, {"y"});
  model.Output("y", "y");
  Load(model);
  Shape shape;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  Run({{"x", Shape{8, 2}}}, {std::vector<float>(16, nan)}, &shape);
  EXPECT_THAT(Run({{"x", Shape{5, 2}}}, {std::vector<float>(10, 3)}, &shape),
              testing::ElementsAreArray(std::vector<float>(10, 3)));
  EXPECT_EQ(shape, (Shape{5, 2}));
}

TEST_F(OpenVinoPaddingTest, InputsOfDifferentRows_RunAsTheyAre) {
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1, 2});
  model.Input("y", DataType::kFp32, Shape{-1, 2});
  model.Node("Add", {"x", "y"}, {"z"}, IrWriter::Attribute("auto_broadcast", "numpy"));
  model.Output("z", "z");
  Load(model);
  for (int turn = 0; turn < 2; ++turn) {
    Shape shape;
    EXPECT_THAT(Run({{"x", Shape{3, 2}}, {"y", Shape{3, 2}}},
                    {{1, 2, 3, 4, 5, 6}, {10, 20, 30, 40, 50, 60}}, &shape),
                testing::ElementsAre(11, 22, 33, 44, 55, 66));
    EXPECT_THAT(Run({{"x", Shape{1, 2}}, {"y", Shape{3, 2}}}, {{1, 2}, {1, 2, 3, 4, 5, 6}}, &shape),
                testing::ElementsAre(2, 4, 4, 6, 6, 8));
    EXPECT_EQ(shape, (Shape{3, 2}));
  }
}

}  // namespace
}  // namespace penstock::openvino
