// The fixture backend's own promises: tests of the engine and of servers rest on them.

#include "testing/fixture_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <stdexcept>
#include <thread>

#include "backend_under_test.h"
#include "backends/registry.h"
#include "base/clock.h"

namespace penstock {
namespace {

using testing::HasSubstr;

class FixtureBackendTest : public testing::Test {
 protected:
  Result<std::unique_ptr<BackendModel>> Load(std::map<std::string, std::string> parameters) {
    LoadOptions options;
    options.model_name = "m";
    options.version = 1;
    options.path = directory_.Path("model.fixture");
    options.model_directory = directory_.path();
    options.parameters = std::move(parameters);
    return backend_->Load(options);
  }

  Result<std::vector<BatchOutput>> LoadAndRun(std::map<std::string, std::string> parameters) {
    PENSTOCK_ASSIGN_OR_RETURN(model_, Load(std::move(parameters)));
    PENSTOCK_ASSIGN_OR_RETURN(const auto instance, model_->CreateInstance({"m_0"}));
    return RunBatch(*instance, {{"INPUT0", DataType::kFp32, Shape{2, 1}, data_}}, {0});
  }

  const std::vector<uint8_t> data_ = BytesOf(std::vector<float>{1.0f, 2.0f});
  TempDir directory_;
  std::unique_ptr<Backend> backend_ = MakeFixtureBackend();
  std::unique_ptr<BackendModel> model_;
};

TEST_F(FixtureBackendTest, Parameters_AreEnoughWithoutAFile) {
  EXPECT_TRUE(LoadAndRun({{"kind", "identity"}}).ok());
}

TEST_F(FixtureBackendTest, Parameters_OverrideTheFile) {
  std::ofstream(directory_.Path("model.fixture"))
      << "# a comment\nkind = fail\ndatatype = INT8 # too\n";
  const auto model = Load({{"kind", "identity"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ((*model)->signature().inputs[0].dtype, DataType::kInt8);
}

TEST_F(FixtureBackendTest, ExecuteDelay_IsKept) {
  const int64_t start_ns = Clock::System().NowNs();
  ASSERT_TRUE(LoadAndRun({{"kind", "identity"}, {"execute_delay_ms", "20"}}).ok());
  EXPECT_GE(Clock::System().NowNs() - start_ns, 20'000'000);
}

TEST_F(FixtureBackendTest, Fail_IsInternalWithTheMessage) {
  const auto outputs = LoadAndRun({{"kind", "fail"}, {"message", "no luck"}});
  ASSERT_FALSE(outputs.ok());
  EXPECT_EQ(outputs.status().code(), StatusCode::kInternal);
  EXPECT_EQ(outputs.status().message(), "no luck");
}

TEST_F(FixtureBackendTest, Throw_Throws) {
  EXPECT_THROW(static_cast<void>(LoadAndRun({{"kind", "throw"}})), std::runtime_error);
}

TEST_F(FixtureBackendTest, FailLoad_FailsToLoad) {
  const auto model = Load({{"kind", "fail_load"}, {"message", "no luck"}});
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().message(), "model 'm' version 1: no luck");
}

TEST_F(FixtureBackendTest, WrongShape_ClaimsARowTooMany) {
  const auto outputs = LoadAndRun({{"kind", "wrong_shape"}});
  ASSERT_TRUE(outputs.ok());
  EXPECT_EQ(outputs->front().shape, (Shape{3, 1}));
  EXPECT_EQ(outputs->front().data.size(), data_.size());
}

TEST_F(FixtureBackendTest, WrongBytes_LacksOne) {
  const auto outputs = LoadAndRun({{"kind", "wrong_bytes"}});
  ASSERT_TRUE(outputs.ok());
  EXPECT_EQ(outputs->front().shape, (Shape{2, 1}));
  EXPECT_EQ(outputs->front().data.size(), data_.size() - 1);
}

TEST_F(FixtureBackendTest, BlockUntilFile_WaitsForIt) {
  const std::string file = directory_.Path("go");
  bool is_written = false;
  std::thread writer([&] {
    is_written = true;
    std::ofstream(file) << "go";
  });
  const auto outputs = LoadAndRun({{"kind", "block_until_file"}, {"file", file}});
  writer.join();
  EXPECT_TRUE(outputs.ok());
  EXPECT_TRUE(is_written);
}

TEST_F(FixtureBackendTest, BlockUntilFile_GivesUpAfterItsTimeout) {
  const auto outputs = LoadAndRun(
      {{"kind", "block_until_file"}, {"file", directory_.Path("never")}, {"timeout_ms", "1"}});
  ASSERT_FALSE(outputs.ok());
  EXPECT_EQ(outputs.status().code(), StatusCode::kInternal);
}

TEST_F(FixtureBackendTest, UnknownKind_IsRefused) {
  const auto model = Load({{"kind", "dance"}});
  ASSERT_FALSE(model.ok());
  EXPECT_THAT(std::string(model.status().message()),
              HasSubstr("'kind' has no such value: 'dance'"));
}

}  // namespace
}  // namespace penstock
