// What every backend must do, run over each one that this build has (backend_under_test.h).

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <thread>

#include "backend_under_test.h"
#include "onnx_writer.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class BackendConformance : public testing::TestWithParam<BackendUnderTest> {
 protected:
  void SetUp() override {
    Result<Backend*> opened = GetParam().open();
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    backend_ = *opened;
  }

  std::string ModelPath() const { return directory_.Path(GetParam().model_filename); }

  // Loads the model file a test has written.
  void Load() {
    auto loaded = backend_->Load(MakeLoadOptions(directory_, GetParam()));
    ASSERT_TRUE(loaded.ok()) << loaded.status().ToString();
    model_ = *std::move(loaded);
    instance_ = MakeInstance();
  }

  void LoadIdentity(DataType dtype, const Shape& dims) {
    GetParam().write_identity(ModelPath(), dtype, dims);
    Load();
  }

  std::unique_ptr<BackendInstance> MakeInstance() {
    auto instance = model_->CreateInstance({"m_0"});
    EXPECT_TRUE(instance.ok()) << instance.status().ToString();
    return *std::move(instance);
  }

  void ExpectEcho(DataType dtype, const Shape& shape, const std::vector<uint8_t>& data) {
    const auto outputs = RunBatch(*instance_, {{"INPUT0", dtype, shape, data}}, {0});
    ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
    ASSERT_EQ(outputs->size(), 1u);
    const BatchOutput& output = outputs->front();
    EXPECT_EQ(output.index, 0u);
    EXPECT_EQ(output.dtype, dtype);
    EXPECT_EQ(output.shape, shape);
    EXPECT_EQ(std::vector<uint8_t>(output.data.span().begin(), output.data.span().end()), data);
  }

  TempDir directory_;
  Backend* backend_ = nullptr;
  std::unique_ptr<BackendModel> model_;
  std::unique_ptr<BackendInstance> instance_;
};

INSTANTIATE_TEST_SUITE_P(Backends, BackendConformance, testing::ValuesIn(BackendsUnderTest()),
                         [](const auto& info) { return info.param.name; });

TEST_P(BackendConformance, Description_NamesEngineAndVersion) {
  EXPECT_THAT(std::string(backend_->description()), testing::MatchesRegex(".+ [0-9].*"));
}

TEST_P(BackendConformance, Signature_IsTheFilesWithAnyAsMinusOne) {
  GetParam().write_simple(ModelPath());
  Load();
  const ModelSignature& signature = model_->signature();
  ASSERT_EQ(signature.inputs.size(), 2u);
  ASSERT_EQ(signature.outputs.size(), 2u);
  EXPECT_EQ(signature.inputs[0].name, "INPUT0");
  EXPECT_EQ(signature.inputs[1].name, "INPUT1");
  EXPECT_EQ(signature.outputs[0].name, "OUTPUT0");
  EXPECT_EQ(signature.outputs[1].name, "OUTPUT1");
  for (const TensorSpec& spec : signature.inputs) {
    EXPECT_EQ(spec.dtype, DataType::kInt32);
    EXPECT_EQ(spec.dims, (Shape{-1, 16}));
    EXPECT_FALSE(spec.is_optional);
  }
}

// Patterns that any change of a bit would show: NaNs with payloads and infinities among them.
std::vector<uint8_t> Pattern(DataType dtype, size_t count) {
  if (dtype == DataType::kBytes) {
    std::vector<std::string> texts;
    for (size_t i = 0; i < count; ++i)
      texts.push_back(std::string(i % 5, 'a') + std::string(i % 3, '\0'));
    return WireBytes(texts);
  }
  std::vector<uint8_t> bytes(count * DataTypeSize(dtype));
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<uint8_t>(dtype == DataType::kBool ? i % 2 : 255 - 7 * i);
  }
  return bytes;
}

TEST_P(BackendConformance, EveryDataType_PassesThroughBitForBit) {
  for (int type = 1; type <= static_cast<int>(DataType::kBytes); ++type) {
    const auto dtype = static_cast<DataType>(type);
    SCOPED_TRACE(DataTypeName(dtype));
    LoadIdentity(dtype, Shape{-1, 6});
    EXPECT_EQ(model_->signature().inputs[0].dtype, dtype);
    EXPECT_EQ(model_->signature().outputs[0].dtype, dtype);
    ExpectEcho(dtype, Shape{3, 6}, Pattern(dtype, 18));
  }
}

TEST_P(BackendConformance, NonFiniteValues_PassThrough) {
  LoadIdentity(DataType::kFp32, Shape{-1, 3});
  const float infinity = std::numeric_limits<float>::infinity();
  ExpectEcho(DataType::kFp32, Shape{1, 3},
             BytesOf(std::vector<float>{std::nanf("7"), infinity, -infinity}));
}

TEST_P(BackendConformance, BytesWithZerosAndEmptyElements_KeepTheirLengths) {
  LoadIdentity(DataType::kBytes, Shape{-1});
  ExpectEcho(
      DataType::kBytes, Shape{4},
      WireBytes({std::string("a\0b", 3), "", std::string(1, '\0'), std::string(100'000, 'x')}));
}

TEST_P(BackendConformance, BatchSizeChangesFromRunToRun) {
  LoadIdentity(DataType::kFp32, Shape{-1, 5});
  for (const int64_t rows : {1, 64, 3, 1, 8}) {
    ExpectEcho(DataType::kFp32, Shape{rows, 5}, Pattern(DataType::kFp32, rows * 5));
  }
}

TEST_P(BackendConformance, EveryVariableDimension_TakesAnySize) {
  LoadIdentity(DataType::kInt64, Shape{-1, -1, -1});
  ExpectEcho(DataType::kInt64, Shape{2, 3, 4}, Pattern(DataType::kInt64, 24));
  ExpectEcho(DataType::kInt64, Shape{1, 7, 1}, Pattern(DataType::kInt64, 7));
}

TEST_P(BackendConformance, ZeroSizeTensor_GivesZeroSizeOutput) {
  LoadIdentity(DataType::kFp32, Shape{-1, -1});
  ExpectEcho(DataType::kFp32, Shape{2, 0}, {});
  LoadIdentity(DataType::kBytes, Shape{-1, -1});
  ExpectEcho(DataType::kBytes, Shape{0, 3}, {});
}

TEST_P(BackendConformance, ModelWithoutBatchDimension_Runs) {
  LoadIdentity(DataType::kFp32, Shape{2, 3});
  EXPECT_EQ(model_->signature().inputs[0].dims, (Shape{2, 3}));
  ExpectEcho(DataType::kFp32, Shape{2, 3}, Pattern(DataType::kFp32, 6));
}

TEST_P(BackendConformance, Scalar_Runs) {
  LoadIdentity(DataType::kFp64, Shape{});
  EXPECT_TRUE(model_->signature().inputs[0].dims.empty());
  ExpectEcho(DataType::kFp64, Shape{}, Pattern(DataType::kFp64, 1));
}

class SimpleModel : public BackendConformance {
 protected:
  void SetUp() override {
    BackendConformance::SetUp();
    if (backend_ == nullptr) return;
    GetParam().write_simple(ModelPath());
    Load();
    for (int32_t i = 0; i < 32; ++i) {
      a_.push_back(i * 1000);
      b_.push_back(7 - i);
      sum_.push_back(a_.back() + b_.back());
      difference_.push_back(a_.back() - b_.back());
    }
  }

  Result<std::vector<BatchOutput>> Run(const std::vector<size_t>& wanted) {
    const auto a = BytesOf(a_);
    const auto b = BytesOf(b_);
    const Shape shape{2, 16};
    return RunBatch(
        *instance_,
        {{"INPUT0", DataType::kInt32, shape, a}, {"INPUT1", DataType::kInt32, shape, b}}, wanted);
  }

  static std::vector<int32_t> Values(const BatchOutput& output) {
    std::vector<int32_t> values(output.data.size() / sizeof(int32_t));
    std::memcpy(values.data(), output.data.data(), output.data.size());
    return values;
  }

  std::vector<int32_t> a_, b_, sum_, difference_;
};

INSTANTIATE_TEST_SUITE_P(Backends, SimpleModel, testing::ValuesIn(BackendsUnderTest()),
                         [](const auto& info) { return info.param.name; });

TEST_P(SimpleModel, AllOutputs_ComeInTheOrderWanted) {
  const auto outputs = Run({1, 0});
  ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
  ASSERT_EQ(outputs->size(), 2u);
  EXPECT_EQ((*outputs)[0].index, 1u);
  EXPECT_EQ(Values((*outputs)[0]), difference_);
  EXPECT_EQ((*outputs)[1].index, 0u);
  EXPECT_EQ(Values((*outputs)[1]), sum_);
}

TEST_P(SimpleModel, WantedOutputs_MayDifferFromRunToRun) {
  for (const size_t wanted : {1, 0, 1}) {
    const auto outputs = Run({wanted});
    ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
    ASSERT_EQ(outputs->size(), 1u);
    EXPECT_EQ(Values(outputs->front()), wanted == 0 ? sum_ : difference_);
  }
}

TEST_P(SimpleModel, OutputWantedTwice_ComesTwice) {
  const auto outputs = Run({0, 1, 0});
  ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
  ASSERT_EQ(outputs->size(), 3u);
  EXPECT_EQ(Values((*outputs)[0]), sum_);
  EXPECT_EQ(Values((*outputs)[2]), sum_);
}

TEST_P(SimpleModel, Outputs_OutliveInstanceAndModel) {
  auto outputs = Run({0, 1});
  ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
  instance_.reset();
  model_.reset();
  EXPECT_EQ(Values((*outputs)[0]), sum_);
  EXPECT_EQ(Values((*outputs)[1]), difference_);
}

TEST_P(SimpleModel, EarlierOutputs_AreNotOverwrittenByTheNextRun) {
  const auto first = Run({0});
  const std::vector<int32_t> sum = sum_;
  for (int32_t& value : a_) value = -value;
  const auto second = Run({0});
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(Values(first->front()), sum);
  EXPECT_NE(Values(second->front()), sum);
}

TEST_P(SimpleModel, Instances_RunAtTheSameTime) {
  std::vector<std::unique_ptr<BackendInstance>> instances;
  for (int i = 0; i < 4; ++i) instances.push_back(MakeInstance());
  std::vector<int> right(instances.size(), 0);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < instances.size(); ++t) {
    threads.emplace_back([&, t] {
      const auto a = BytesOf(a_);
      const std::vector<int32_t> mine(32, static_cast<int32_t>(t));
      const auto b = BytesOf(mine);
      for (int i = 0; i < 50; ++i) {
        const auto outputs = RunBatch(*instances[t],
                                      {{"INPUT0", DataType::kInt32, Shape{2, 16}, a},
                                       {"INPUT1", DataType::kInt32, Shape{2, 16}, b}},
                                      {0});
        right[t] += outputs.ok() && Values(outputs->front())[1] == a_[1] + static_cast<int32_t>(t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, std::vector<int>(instances.size(), 50));
}

TEST_P(BackendConformance, FailedBatch_IsInternalAndTheNextOneRuns) {
  GetParam().write_picky(ModelPath());
  Load();
  const auto run = [&](const Shape& shape) {
    const auto data = BytesOf(std::vector<float>(*shape.NumElements(), 1.5f));
    return RunBatch(*instance_, {{"INPUT0", DataType::kFp32, shape, data}}, {0}).status();
  };
  ASSERT_TRUE(run(GetParam().good_shape).ok());
  const Status failure = run(GetParam().bad_shape);
  EXPECT_EQ(failure.code(), StatusCode::kInternal) << failure.ToString();
  EXPECT_FALSE(failure.message().empty());
  EXPECT_TRUE(run(GetParam().good_shape).ok());
}

TEST_P(BackendConformance, LoadFailures_NameModelAndVersionButNoPath) {
  const LoadOptions options = MakeLoadOptions(directory_, GetParam());
  const auto missing = backend_->Load(options);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), StatusCode::kNotFound);
  OnnxWriter::WriteFile(ModelPath(), "this is not a model");
  const auto corrupt = backend_->Load(options);
  ASSERT_FALSE(corrupt.ok());
  EXPECT_EQ(corrupt.status().code(), StatusCode::kInvalidArgument);
  for (const Status& status : {missing.status(), corrupt.status()}) {
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("model 'm' version 7"), Not(HasSubstr(directory_.path()))));
  }
}

TEST_P(BackendConformance, ForeignParameters_AreLeftAlone) {
  GetParam().write_simple(ModelPath());
  LoadOptions options = MakeLoadOptions(directory_, GetParam());
  options.parameters = {{"owner", "the vision team"}, {"threshold", "0.5"}};
  const auto loaded = backend_->Load(options);
  EXPECT_TRUE(loaded.ok()) << loaded.status().ToString();
}

}  // namespace
}  // namespace penstock
