#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/onnxruntime/settings.h"

namespace penstock::ort {
namespace {

using testing::HasSubstr;

TEST(OrtSettingsTest, Empty_GivesTheDefaults) {
  const auto settings = ParseSettings({});
  ASSERT_TRUE(settings.ok());
  EXPECT_FALSE(settings->intra_op_threads.has_value());
  EXPECT_EQ(settings->execution_mode, ExecutionMode::kSequential);
  EXPECT_EQ(settings->graph_level, GraphLevel::kAll);
  EXPECT_TRUE(settings->enable_mem_arena);
  EXPECT_TRUE(settings->session_config.empty());
}

TEST(OrtSettingsTest, TritonsNames_AreRead) {
  const auto settings = ParseSettings({{"intra_op_thread_count", "3"},
                                       {"inter_op_thread_count", "2"},
                                       {"execution_mode", "1"},
                                       {"graph_optimization_level", "1"},
                                       {"enable_mem_arena", "0"},
                                       {"enable_mem_pattern", "false"},
                                       {"memory.enable_memory_arena_shrinkage", "cpu:0"},
                                       {"session.set_denormal_as_zero", "1"}});
  ASSERT_TRUE(settings.ok()) << settings.status().ToString();
  EXPECT_EQ(settings->intra_op_threads, 3);
  EXPECT_EQ(settings->inter_op_threads, 2);
  EXPECT_EQ(settings->execution_mode, ExecutionMode::kParallel);
  EXPECT_EQ(settings->graph_level, GraphLevel::kExtended);
  EXPECT_FALSE(settings->enable_mem_arena);
  EXPECT_FALSE(settings->enable_mem_pattern);
  EXPECT_EQ(settings->arena_shrinkage, "cpu:0");
  ASSERT_EQ(settings->session_config.size(), 1u);
  EXPECT_EQ(settings->session_config[0].first, "session.set_denormal_as_zero");
}

TEST(OrtSettingsTest, GraphLevels_AreTritons) {
  const std::vector<std::pair<std::string, GraphLevel>> levels = {{"-1", GraphLevel::kBasic},
                                                                  {"0", GraphLevel::kAll},
                                                                  {"1", GraphLevel::kExtended},
                                                                  {"2", GraphLevel::kDisabled}};
  for (const auto& [text, level] : levels) {
    const auto settings = ParseSettings({{"graph_optimization_level", text}});
    ASSERT_TRUE(settings.ok()) << text;
    EXPECT_EQ(settings->graph_level, level) << text;
  }
}

struct BadSetting {
  std::string name;
  std::string value;
};

class BadSettingTest : public testing::TestWithParam<BadSetting> {};

TEST_P(BadSettingTest, IsRefusedByNameAndValue) {
  const auto settings = ParseSettings({{GetParam().name, GetParam().value}});
  ASSERT_FALSE(settings.ok());
  EXPECT_EQ(settings.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(settings.status().message()), HasSubstr("'" + GetParam().name + "'"));
  EXPECT_THAT(std::string(settings.status().message()),
              HasSubstr("got '" + GetParam().value + "'"));
}

INSTANTIATE_TEST_SUITE_P(
    Settings, BadSettingTest,
    testing::Values(BadSetting{"intra_op_thread_count", "-1"},
                    BadSetting{"intra_op_thread_count", "two"},
                    BadSetting{"intra_op_thread_count", "2.5"},
                    BadSetting{"inter_op_thread_count", "99999999999"},
                    BadSetting{"execution_mode", "2"}, BadSetting{"graph_optimization_level", "3"},
                    BadSetting{"enable_mem_arena", "maybe"}, BadSetting{"map_external_data", "no"},
                    BadSetting{"memory.enable_memory_arena_shrinkage", "gpu:0"},
                    BadSetting{"session.intra_op.allow_spinning", "yes"}));

class UnknownSettingTest : public testing::TestWithParam<std::string> {};

TEST_P(UnknownSettingTest, IsRefusedWithTheKnownOnes) {
  const auto settings = ParseSettings({{GetParam(), "1"}});
  ASSERT_FALSE(settings.ok());
  EXPECT_THAT(std::string(settings.status().message()),
              testing::AllOf(HasSubstr("'" + GetParam() + "'"), HasSubstr("intra_op_thread_count"),
                             HasSubstr("session.disable_prepacking")));
}

// Misspelt, of the engine's GPU providers, or naming files that the engine would read or write.
INSTANTIATE_TEST_SUITE_P(Settings, UnknownSettingTest,
                         testing::Values("intra_op_threads", "map_external_weights",
                                         "session.load_model_format",
                                         "session.model_external_initializers_file_folder_path",
                                         "ep.context_enable", "gpu_external_alloc",
                                         "trt_fp16_enable",
                                         "optimization.minimal_build_optimizations"));

}  // namespace
}  // namespace penstock::ort
