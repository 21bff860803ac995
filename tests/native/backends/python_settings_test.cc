#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/python/settings.h"

namespace penstock::python {
namespace {

using testing::HasSubstr;

TEST(PythonSettingsTest, Parameters_AreReadAndForeignOnesLeftAlone) {
  const auto settings = ReadModelSettings({{"execution_limit_s", "0.5"},
                                           {"memory_limit_mb", "512"},
                                           {"max_restarts", "0"},
                                           {"threshold", "x"}});
  ASSERT_TRUE(settings.ok()) << settings.status().ToString();
  EXPECT_EQ(settings->limits.execution_limit_s, 0.5);
  EXPECT_EQ(settings->memory_limit_mb, 512U);
  EXPECT_EQ(settings->max_restarts, 0U);
  EXPECT_EQ(settings->limits.load_limit_s, 600);
}

TEST(PythonSettingsTest, WhatIsNoNumber_IsRefusedByName) {
  for (const char* value : {"", "-1", "x", "1x", "nan", "1e99"}) {
    const auto settings = ReadModelSettings({{"execution_limit_s", value}});
    EXPECT_EQ(settings.status().code(), StatusCode::kInvalidArgument) << value;
    EXPECT_THAT(std::string(settings.status().message()),
                HasSubstr("parameters['execution_limit_s']"));
  }
}

TEST(PythonSettingsTest, EnvironmentPath_IsRefusedByName) {
  EXPECT_THAT(
      std::string(ReadModelSettings({{"EXECUTION_ENV_PATH", "env.tar.gz"}}).status().message()),
      HasSubstr("requirements.lock"));
}

TEST(PythonSettingsTest, BackendOptions_AreKnownAndComplete) {
  EXPECT_TRUE(ReadBackendSettings({{"interpreter", "python"}, {"runtime", "main"}}).ok());
  EXPECT_FALSE(ReadBackendSettings({{"interpreter", "python"}}).ok());
  EXPECT_THAT(std::string(ReadBackendSettings({{"shm", "1"}}).status().message()),
              HasSubstr("'shm'"));
}

}  // namespace
}  // namespace penstock::python
