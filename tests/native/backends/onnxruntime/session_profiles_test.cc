// What TensorRT's provider is told of shapes, and the sessions that are opened to know them.
#include "backends/onnxruntime/session_profiles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "testing/fake_session.h"

namespace penstock::ort {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

// Sessions of the fake engine, and what each was told of profiles.
struct Sessions {
  explicit Sessions(const FakeSessionOptions& options, const RangeSettings& ranges)
      : opener(gpu, log, options),
        profiled("model 'm' version 1", ranges,
                 [this](int device, gpu::Stream stream, const ProfileOptions* profiles) {
                   told.push_back(profiles == nullptr ? "none" : testing::PrintToString(*profiles));
                   return opener.Open(device, stream);
                 }) {
    EXPECT_EQ(gpu.CreateStream(0, &stream), gpu::Error::kSuccess);
  }
  ~Sessions() { EXPECT_EQ(gpu.DestroyStream(stream), gpu::Error::kSuccess); }
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  FakeGpu gpu;
  FakeSessionLog log;
  FakeSessionOpener opener;
  std::vector<std::string> told;
  ProfiledSessions profiled;
  gpu::Stream stream = nullptr;
};

void OpenThree(Sessions& sessions) {
  for (int i = 0; i < 3; ++i) {
    const auto opened = sessions.profiled.Open(0, sessions.stream);
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
  }
}

TEST(SessionProfilesTest, OpenShapes_AreAskedOfOneSessionMore) {
  Sessions sessions({.width = 4}, {.max_rows = 8});
  OpenThree(sessions);
  ASSERT_EQ(sessions.told.size(), 4U);
  EXPECT_EQ(sessions.told[0], "none");
  for (size_t i = 1; i < sessions.told.size(); ++i) {
    EXPECT_THAT(sessions.told[i], HasSubstr("(\"trt_profile_max_shapes\", \"x:8x4,b:8x1\")"));
  }
}

TEST(SessionProfilesTest, FixedShapes_AreAskedOfOneSessionMoreLikewise) {
  Sessions sessions({.width = 4, .rows = 2}, {});
  OpenThree(sessions);
  EXPECT_THAT(sessions.told, ElementsAre("none", "{}", "{}", "{}"));
}

TEST(SessionProfilesTest, Ranges_AreWrittenAsTheProviderReadsThem) {
  ModelSignature signature;
  signature.inputs = {{"ids", DataType::kInt64, {-1, -1}},
                      {"w", DataType::kFp32, {-1}, /*is_optional=*/true},
                      {"scale", DataType::kFp32, {}},
                      {"x", DataType::kFp32, {-1, 3}}};
  const std::vector<tensorrt::ProfileRange> ranges = {
      {{1, 1}, {8, 64}, {8, 128}}, {{5}, {5}, {5}}, {}, {{1, 3}, {8, 3}, {8, 3}}};
  EXPECT_THAT(ProfileOptionsOf(signature, ranges),
              ElementsAre(Pair("trt_profile_max_shapes", "ids:8x128,x:8x3"),
                          Pair("trt_profile_min_shapes", "ids:1x1,x:1x3"),
                          Pair("trt_profile_opt_shapes", "ids:8x64,x:8x3")));
  signature.inputs[0].dims = {8, 128};
  signature.inputs[3].dims = {8, 3};
  EXPECT_THAT(ProfileOptionsOf(signature, ranges), IsEmpty());
}

TEST(SessionProfilesTest, SessionThatDoesNotOpen_IsAskedAgainTheNextTime) {
  Sessions sessions({.width = 4}, {.max_rows = 8});
  sessions.log.FailOpen(1);
  EXPECT_FALSE(sessions.profiled.Open(0, sessions.stream).ok());
  OpenThree(sessions);
  EXPECT_EQ(sessions.told.size(), 5U);
}

}  // namespace
}  // namespace penstock::ort
