// How the openvino backend runs models: precision, shapes the engine would not check, memory.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <thread>

#include "backend_under_test.h"
#include "backends/openvino/openvino_backend.h"
#include "ir_writer.h"

namespace penstock::openvino {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;

class OpenVinoRunTest : public testing::Test {
 protected:
  void Load(const IrWriter& model, std::map<std::string, std::string> parameters = {}) {
    static auto& backend = *(*OpenVinoBackend::Start()).release();
    options_.parameters = std::move(parameters);
    model.Write(options_.path);
    auto loaded = backend.Load(options_);
    ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
    instance_.reset();
    model_ = *std::move(loaded);
    instance_ = *model_->CreateInstance({"m_0"});
  }

  Result<std::vector<BatchOutput>> TryRun(const std::vector<float>& values, const Shape& shape) {
    const auto bytes = BytesOf(values);
    return RunBatch(*instance_, {{"x", DataType::kFp32, shape, bytes}}, {0});
  }

  std::vector<float> Run(const std::vector<float>& values, const Shape& shape) {
    const auto outputs = TryRun(values, shape);
    EXPECT_TRUE(outputs.ok()) << outputs.status().ToString();
    if (!outputs.ok()) return {};
    std::vector<float> result(outputs->front().data.size() / sizeof(float));
    std::memcpy(result.data(), outputs->front().data.data(), outputs->front().data.size());
    return result;
  }

  static std::string Floats(const std::vector<float>& values) {
    const auto bytes = BytesOf(values);
    return std::string(bytes.begin(), bytes.end());
  }

  // x [-1,width] times a matrix [64,64] of 1/3, which bf16 rounds.
  static IrWriter Thirds(const Shape& dims) {
    IrWriter model;
    model.Input("x", DataType::kFp32, dims);
    model.Constant("w", DataType::kFp32, Shape{64, 64}, Floats(std::vector<float>(4096, 1.0f / 3)));
    model.Node("MatMul", {"x", "w"}, {"y"});
    model.Output("y", "y");
    return model;
  }

  TempDir directory_;
  LoadOptions options_{"m", 2, directory_.Path("model.xml"), directory_.path(), {}};
  std::unique_ptr<BackendModel> model_;
  std::unique_ptr<BackendInstance> instance_;
};

TEST_F(OpenVinoRunTest, Fp32Model_ComputesInFp32OnEveryCpu) {
  Load(Thirds(Shape{-1, 64}));
  const std::vector<float> ones(64, 1.0f);
  EXPECT_THAT(Run(ones, Shape{1, 64}), Each(testing::FloatNear(64.0f / 3, 1e-4f)));
}

TEST_F(OpenVinoRunTest, LowerPrecision_IsServedOnlyWhereItIsAskedFor) {
  for (const char* precision : {"bf16", "f16"}) {
    SCOPED_TRACE(precision);
    Load(Thirds(Shape{-1, 64}), {{"INFERENCE_PRECISION_HINT", precision}});
    EXPECT_THAT(Run(std::vector<float>(64, 1.0f), Shape{1, 64}),
                Each(testing::FloatNear(64.0f / 3, 0.1f)));
  }
}

TEST_F(OpenVinoRunTest, ShapeThatDoesNotFitTheWeights_IsRefusedOnAnyNumberOfThreads) {
  for (const char* threads : {"1", "2"}) {
    Load(Thirds(Shape{-1, -1}), {{"INFERENCE_NUM_THREADS", threads}});
    for (const int64_t width : {63, 65, 1}) {
      const auto outputs = TryRun(std::vector<float>(2 * width, 1.0f), Shape{2, width});
      ASSERT_FALSE(outputs.ok()) << width;
      EXPECT_EQ(outputs.status().code(), StatusCode::kInternal);
      EXPECT_THAT(std::string(outputs.status().message()), HasSubstr("model 'm' version 2"));
    }
    EXPECT_EQ(Run(std::vector<float>(128, 1.0f), Shape{2, 64}).size(), 128u);
  }
}

TEST_F(OpenVinoRunTest, NodeThatThrows_FailsItsBatchWhateverRanBefore) {
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1});
  model.Input("i", DataType::kInt64, Shape{-1});
  model.Input("u", DataType::kFp32, Shape{-1});
  const auto axis = BytesOf(std::vector<int64_t>{0});
  model.Constant("axis", DataType::kInt64, Shape{1}, std::string(axis.begin(), axis.end()));
  model.Node("ScatterUpdate", {"x", "i", "u", "axis"}, {"y"}, "", "opset3");
  model.Output("y", "y");
  using Parameters = std::map<std::string, std::string>;
  for (const Parameters& parameters :
       {Parameters{}, Parameters{{"INFERENCE_NUM_THREADS", "1"}},
        Parameters{{"INFERENCE_NUM_THREADS", "2"}}, Parameters{{"NUM_STREAMS", "2"}},
        Parameters{{"PERFORMANCE_HINT", "THROUGHPUT"}}}) {
    Load(model, parameters);
    const auto run = [&](float value, int64_t index) {
      const auto x = BytesOf(std::vector<float>(8, value));
      const auto i = BytesOf(std::vector<int64_t>{index});
      const auto u = BytesOf(std::vector<float>{7});
      return RunBatch(*instance_,
                      {{"x", DataType::kFp32, Shape{8}, x},
                       {"i", DataType::kInt64, Shape{1}, i},
                       {"u", DataType::kFp32, Shape{1}, u}},
                      {0});
    };
    ASSERT_TRUE(run(42, 0).ok());
    EXPECT_EQ(run(0, 9).status().code(), StatusCode::kInternal);
    EXPECT_TRUE(run(0, 7).ok());
  }
}

TEST_F(OpenVinoRunTest, IndicesThatTheEngineWouldNotCheck_AreRefusedByOperator) {
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1});
  model.Input("i", DataType::kInt64, Shape{-1, 1});
  model.Node("GatherND", {"x", "i"}, {"y"}, IrWriter::Attribute("batch_dims", "0"), "opset8");
  model.Output("y", "y");
  model.Write(options_.path);
  static auto& backend = *(*OpenVinoBackend::Start()).release();
  const Status status = backend.Load(options_).status();
  EXPECT_EQ(status.code(), StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(status.message()), HasSubstr("operator GatherND 'y'"));
}

TEST_F(OpenVinoRunTest, PatternOfAReshape_HoldsForEveryShape) {
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1, -1});
  const auto pattern = BytesOf(std::vector<int64_t>{1, 64});
  model.Constant("pattern", DataType::kInt64, Shape{2},
                 std::string(pattern.begin(), pattern.end()));
  model.Constant("w", DataType::kFp32, Shape{64, 64}, Floats(std::vector<float>(4096, 1.0f)));
  model.Node("Reshape", {"x", "pattern"}, {"row"}, IrWriter::Attribute("special_zero", "false"));
  model.Node("MatMul", {"row", "w"}, {"y"});
  model.Output("y", "y");
  Load(model);
  EXPECT_THAT(Run(std::vector<float>(64, 1.0f), Shape{1, 64}), Each(64.0f));
  EXPECT_THAT(Run(std::vector<float>(64, 1.0f), Shape{2, 32}), Each(64.0f));
  EXPECT_FALSE(TryRun(std::vector<float>(128, 1.0f), Shape{1, 128}).ok());
  EXPECT_FALSE(TryRun(std::vector<float>(128, 1.0f), Shape{2, 64}).ok());
}

TEST_F(OpenVinoRunTest, LargeConstants_StillGiveShapesTheirMeaning) {
  // The pattern of a reshape comes from a small constant, the weights are large.
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1, -1});
  model.Constant("w", DataType::kFp32, Shape{64, 64}, Floats(std::vector<float>(4096, 1.0f)));
  model.Constant("pattern", DataType::kInt64, Shape{2}, [] {
    const auto bytes = BytesOf(std::vector<int64_t>{-1, 64});
    return std::string(bytes.begin(), bytes.end());
  }());
  model.Node("Reshape", {"x", "pattern"}, {"rows"}, IrWriter::Attribute("special_zero", "false"));
  model.Node("MatMul", {"rows", "w"}, {"y"});
  model.Output("y", "y");
  Load(model);
  EXPECT_THAT(Run(std::vector<float>(128, 1.0f), Shape{4, 32}), Each(64.0f));
  EXPECT_FALSE(TryRun(std::vector<float>(96, 1.0f), Shape{3, 32}).ok());
}

TEST_F(OpenVinoRunTest, OutputThatIsAnInputForTheOptimiser_IsRightAndLeavesTheInputAlone) {
  for (const Shape& dims : {Shape{-1, 3}, Shape{2, 3}}) {
    IrWriter model;
    model.Input("x", DataType::kFp32, dims);
    model.Constant("nothing", DataType::kFp32, Shape{1}, Floats({0}));
    model.Node("Add", {"x", "nothing"}, {"y"});
    model.Output("y", "y");
    Load(model);
    for (const float first : {1.0f, 7.0f}) {
      const std::vector<float> values{first, 2, 3, 4, 5, 6};
      const auto bytes = BytesOf(values);
      const auto outputs = RunBatch(*instance_, {{"x", DataType::kFp32, Shape{2, 3}, bytes}}, {0});
      ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
      const auto data = outputs->front().data.span();
      EXPECT_EQ(std::vector<uint8_t>(data.begin(), data.end()), bytes);
      EXPECT_EQ(bytes, BytesOf(values));
    }
  }
}

TEST_F(OpenVinoRunTest, Inputs_AreOnlyRead) {
  IrWriter model;
  model.Input("x", DataType::kFp32, Shape{-1, 4});
  model.Node("Relu", {"x"}, {"r"});
  model.Node("Sqrt", {"r"}, {"y"});
  model.Output("y", "y");
  Load(model);
  const auto bytes = BytesOf(std::vector<float>{-4, 4, 9, 16});
  const auto before = bytes;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(RunBatch(*instance_, {{"x", DataType::kFp32, Shape{1, 4}, bytes}}, {0}).ok());
    EXPECT_EQ(bytes, before);
  }
}

TEST_F(OpenVinoRunTest, Instance_RunsOnOneThreadAfterAnother) {
  Load(Thirds(Shape{-1, 64}));
  EXPECT_TRUE(instance_->runs_on_any_thread());
  const std::vector<float> here = Run(std::vector<float>(64, 1.0f), Shape{1, 64});
  std::thread([&] { EXPECT_EQ(Run(std::vector<float>(64, 1.0f), Shape{1, 64}), here); }).join();
}

TEST_F(OpenVinoRunTest, Instances_RunBesideEachOther) {
  IrWriter model;  // not row by row: each runs at the size it has
  model.Input("x", DataType::kFp32, Shape{-1, 4});
  model.Node("SoftMax", {"x"}, {"y"}, IrWriter::Attribute("axis", "0"));
  model.Output("y", "y");
  using Parameters = std::map<std::string, std::string>;
  for (const Parameters& parameters :
       {Parameters{}, Parameters{{"INFERENCE_NUM_THREADS", "2"}, {"NUM_STREAMS", "2"}}}) {
    Load(model, parameters);
    const auto work = [&](int64_t rows) {
      const auto instance = *model_->CreateInstance({"m_1"});
      for (int turn = 0; turn < 200; ++turn, rows = rows % 7 + 1) {
        const auto x = BytesOf(std::vector<float>(rows * 4, static_cast<float>(turn)));
        const auto outputs = RunBatch(*instance, {{"x", DataType::kFp32, Shape{rows, 4}, x}}, {0});
        ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
        std::vector<float> y(rows * 4);
        ASSERT_EQ(outputs->front().data.size(), y.size() * sizeof(float));
        std::memcpy(y.data(), outputs->front().data.data(), outputs->front().data.size());
        ASSERT_THAT(y, Each(testing::FloatNear(1.0f / static_cast<float>(rows), 1e-5f)));
      }
    };
    std::vector<std::thread> threads;
    for (int64_t i = 1; i <= 4; ++i) threads.emplace_back(work, i);
    for (std::thread& each : threads) each.join();
  }
}

// Every way to set threads, streams and precision gives a model that runs.
class OpenVinoSettingsCombinationTest
    : public OpenVinoRunTest,
      public testing::WithParamInterface<std::map<std::string, std::string>> {};

TEST_P(OpenVinoSettingsCombinationTest, LoadsAndRuns) {
  Load(Thirds(Shape{-1, 64}), GetParam());
  EXPECT_THAT(Run(std::vector<float>(64, 0.0f), Shape{1, 64}), Each(0.0f));
}

using Parameters = std::map<std::string, std::string>;
INSTANTIATE_TEST_SUITE_P(
    Settings, OpenVinoSettingsCombinationTest,
    testing::Values(Parameters{}, Parameters{{"INFERENCE_NUM_THREADS", "0"}},
                    Parameters{{"INFERENCE_NUM_THREADS", "2"}, {"NUM_STREAMS", "2"}},
                    Parameters{{"NUM_STREAMS", "AUTO"}}, Parameters{{"NUM_STREAMS", "NUMA"}},
                    Parameters{{"PERFORMANCE_HINT", "THROUGHPUT"}},
                    Parameters{{"PERFORMANCE_HINT", "CUMULATIVE_THROUGHPUT"}},
                    Parameters{{"COMPILATION_NUM_THREADS", "1"}},
                    Parameters{{"HINT_BF16", "YES"}, {"PERFORMANCE_HINT", "LATENCY"}}));

class OpenVinoHostileBytesTest : public OpenVinoRunTest,
                                 public testing::WithParamInterface<std::vector<uint8_t>> {};

TEST_P(OpenVinoHostileBytesTest, AreRefusedAndTheNextBatchRuns) {
  IrWriter model;
  model.Input("x", DataType::kBytes, Shape{-1});
  model.Output("y", "x");
  Load(model);
  const auto bad = RunBatch(*instance_, {{"x", DataType::kBytes, Shape{2}, GetParam()}}, {0});
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.status().code(), StatusCode::kInvalidArgument);
  const auto good = WireBytes({"a", "bc"});
  EXPECT_TRUE(RunBatch(*instance_, {{"x", DataType::kBytes, Shape{2}, good}}, {0}).ok());
}

INSTANTIATE_TEST_SUITE_P(Bytes, OpenVinoHostileBytesTest,
                         testing::Values(std::vector<uint8_t>{}, std::vector<uint8_t>{1, 0, 0},
                                         std::vector<uint8_t>{1, 0, 0, 0, 'a'},
                                         std::vector<uint8_t>{0xff, 0xff, 0xff, 0xff, 'a', 0, 0, 0,
                                                              0},
                                         std::vector<uint8_t>{0, 0, 0, 0, 0, 0, 0, 0, 'x'}));

}  // namespace
}  // namespace penstock::openvino
