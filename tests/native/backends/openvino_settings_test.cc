// The openvino backend's settings: Triton's and the engine's parameter names, and what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/openvino/settings.h"

namespace penstock::openvino {
namespace {

using testing::HasSubstr;

TEST(OpenVinoSettingsTest, NoParameters_MeansFp32AndLatency) {
  const auto settings = ParseSettings({});
  ASSERT_TRUE(settings.ok()) << settings.status().ToString();
  EXPECT_EQ(settings->precision, Precision::kFp32);
  EXPECT_EQ(settings->hint, Hint::kLatency);
  EXPECT_FALSE(settings->inference_threads);
  EXPECT_FALSE(settings->streams);
}

TEST(OpenVinoSettingsTest, TritonsParameters_AreRead) {
  const auto settings = ParseSettings({{"PERFORMANCE_HINT", "throughput"},
                                       {"INFERENCE_NUM_THREADS", "3"},
                                       {"COMPILATION_NUM_THREADS", "2"},
                                       {"NUM_STREAMS", "4"},
                                       {"HINT_BF16", "YES"},
                                       {"SKIP_OV_DYNAMIC_BATCHSIZE", "YES"},
                                       {"ENABLE_BATCH_PADDING", "yes"},
                                       {"RESHAPE_IO_LAYERS", "NO"},
                                       {"TARGET_DEVICE", "CPU"}});
  ASSERT_TRUE(settings.ok()) << settings.status().ToString();
  EXPECT_EQ(settings->precision, Precision::kBf16);
  EXPECT_EQ(settings->hint, Hint::kThroughput);
  EXPECT_EQ(settings->inference_threads, 3);
  EXPECT_EQ(settings->streams, 4);
}

TEST(OpenVinoSettingsTest, Precision_IsReadUnderItsNames) {
  for (const auto& [text, precision] :
       std::map<std::string, Precision>{{"f32", Precision::kFp32},
                                        {"FP32", Precision::kFp32},
                                        {"bf16", Precision::kBf16},
                                        {"f16", Precision::kFp16},
                                        {"FP16", Precision::kFp16}}) {
    const auto settings = ParseSettings({{"INFERENCE_PRECISION_HINT", text}});
    ASSERT_TRUE(settings.ok()) << settings.status().ToString();
    EXPECT_EQ(settings->precision, precision) << text;
  }
}

TEST(OpenVinoSettingsTest, Streams_MayBeLeftToTheEngine) {
  EXPECT_EQ(ParseSettings({{"NUM_STREAMS", "AUTO"}})->streams, kAutoStreams);
  EXPECT_EQ(ParseSettings({{"NUM_STREAMS", "numa"}})->streams, kNumaStreams);
}

TEST(OpenVinoSettingsTest, ShapesOfInputs_AreReadByTheirNames) {
  const auto settings = ParseSettings({{"RESHAPE_IO_LAYERS", "yes"},
                                       {"RESHAPE_IO_LAYERS:a:0", "-1,3,8"},
                                       {"RESHAPE_IO_LAYERS:b", ""}});
  ASSERT_TRUE(settings.ok()) << settings.status().ToString();
  EXPECT_EQ(settings->shapes.at("a:0"), (Shape{-1, 3, 8}));
  EXPECT_EQ(settings->shapes.at("b"), Shape{});
}

TEST(OpenVinoSettingsTest, ForeignParameters_AreLeftAlone) {
  EXPECT_TRUE(ParseSettings({{"owner", "vision"}, {"graph_optimization_level", "1"}}).ok());
}

struct Refused {
  std::string name;
  std::string value;
  StatusCode code;
  std::string fragment;
};

class OpenVinoRefusedSettingTest : public testing::TestWithParam<Refused> {};

TEST_P(OpenVinoRefusedSettingTest, IsNamed) {
  const auto settings = ParseSettings({{GetParam().name, GetParam().value}});
  ASSERT_FALSE(settings.ok());
  EXPECT_EQ(settings.status().code(), GetParam().code);
  const std::string message(settings.status().message());
  EXPECT_THAT(message, HasSubstr("'" + GetParam().name + "'"));
  EXPECT_THAT(message, HasSubstr(GetParam().fragment));
}

INSTANTIATE_TEST_SUITE_P(
    Settings, OpenVinoRefusedSettingTest,
    testing::Values(
        Refused{"CPU_EXTENSION_PATH", "/own.so", StatusCode::kUnimplemented, "loads no libraries"},
        Refused{"TARGET_DEVICE", "GPU", StatusCode::kUnimplemented, "device 'GPU'"},
        Refused{"RESHAPE_IO_LAYERS", "yes", StatusCode::kInvalidArgument, "lists the inputs"},
        Refused{"RESHAPE_IO_LAYERS:x", "3,0", StatusCode::kInvalidArgument, "-1 for any"},
        Refused{"RESHAPE_IO_LAYERS:x", "3,a", StatusCode::kInvalidArgument, "got '3,a'"},
        Refused{"CACHE_DIR", "/tmp", StatusCode::kInvalidArgument, "supported are COMPILATION_"},
        Refused{"PERFORMANCE_HINT", "FAST", StatusCode::kInvalidArgument, "got 'FAST'"},
        Refused{"INFERENCE_PRECISION_HINT", "i8", StatusCode::kInvalidArgument, "f32, bf16 or f16"},
        Refused{"INFERENCE_NUM_THREADS", "-1", StatusCode::kInvalidArgument, "from 0 to 1024"},
        Refused{"COMPILATION_NUM_THREADS", "2x", StatusCode::kInvalidArgument, "got '2x'"},
        Refused{"NUM_STREAMS", "0", StatusCode::kInvalidArgument, "AUTO, NUMA or a number"},
        Refused{"HINT_BF16", "maybe", StatusCode::kInvalidArgument, "YES or NO"},
        Refused{"ENABLE_BATCH_PADDING", "2", StatusCode::kInvalidArgument, "YES or NO"}));

}  // namespace
}  // namespace penstock::openvino
