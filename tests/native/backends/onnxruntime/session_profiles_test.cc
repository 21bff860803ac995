// What TensorRT's provider is told of shapes, and the sessions that are opened to know them.
#include "backends/onnxruntime/session_profiles.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "gpu/device.h"
#include "testing/fake_session.h"
#include "testing/quiet_log.h"

namespace penstock::ort {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

// The provider's own words.
constexpr const char* kWantsOthers =
    "TensorRT EP: Please note that main graph could be partitioned into TRT/CUDA/CPU subgraphs, in "
    "this case, user also needs to provide shape profiles for the TRT subgraph's input if it's "
    "dynamic shape input.\nFollowing input(s) has no associated shape profiles provided: /a/Add";
constexpr const char* kCannotRead =
    "TensorRT EP could not deserialize engine from cache: TRTKernel_0_sm90.engine";

// Sessions of the fake engine, and what each was told of profiles.
struct Sessions {
  explicit Sessions(const FakeSessionOptions& options, const RangeSettings& ranges,
                    const std::string& engine_directory = "")
      : opener(gpu, log, options),
        profiled(*device, {"model 'm' version 1", ranges, engine_directory},
                 [this](int ordinal, gpu::Stream stream, const ProfileOptions* profiles) {
                   return OpenOne(ordinal, stream, profiles);
                 }) {
    EXPECT_EQ(gpu.CreateStream(&stream), gpu::Error::kSuccess);
    log.on_run = [this](const Shape& x) { ran.push_back(x.ToString()); };
  }
  ~Sessions() {
    const gpu::Error gone = gpu.DestroyStream(stream);
    EXPECT_TRUE(gone == gpu::Error::kSuccess || gpu::IsSticky(gone));
  }
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;

  Result<std::unique_ptr<DeviceSession>> OpenOne(int ordinal, gpu::Stream on,
                                                 const ProfileOptions* profiles) {
    told.push_back(profiles == nullptr ? "none" : testing::PrintToString(*profiles));
    if (refuses_profiles && profiles != nullptr && !profiles->empty())
      return Internal(kWantsOthers);
    if (!cut_short.empty() && profiles != nullptr && std::filesystem::exists(cut_short)) {
      return Internal(says);
    }
    return opener.Open(ordinal, on);
  }

  FakeGpu gpu;
  std::unique_ptr<gpu::Device> device = *gpu::Device::Open(gpu, Clock::System(), {});
  FakeSessionLog log;
  FakeSessionOpener opener;
  bool refuses_profiles = false;  // as where it takes a part of the model
  std::string cut_short;          // what is kept: while it is there no session opens
  std::string says = kCannotRead;
  std::vector<std::string> told, ran;
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

// Told of the model's inputs alone the provider refuses a model that it takes a part of.
TEST(SessionProfilesTest, PartOfTheModel_IsToldOfNoShapesAndRunAtBothEnds) {
  const QuietLog quiet;
  Sessions sessions({.width = 4}, {.max_rows = 8});
  const size_t before = sessions.gpu.live_objects();
  sessions.refuses_profiles = true;
  OpenThree(sessions);
  ASSERT_EQ(sessions.told.size(), 5U);  // asked, refused, and three times told of none
  EXPECT_THAT(sessions.told[1], HasSubstr("x:8x4"));
  EXPECT_THAT(std::vector(sessions.told.begin() + 2, sessions.told.end()),
              ElementsAre("{}", "{}", "{}"));
  EXPECT_THAT(sessions.ran, ElementsAre("[8,4]", "[1,4]", "[8,4]", "[1,4]", "[8,4]", "[1,4]"));
  EXPECT_THAT(sessions.gpu.races(), IsEmpty());
  EXPECT_EQ(sessions.gpu.pageable_copies(), 0);
  EXPECT_EQ(sessions.gpu.live_objects(), before);
}

TEST(SessionProfilesTest, ProfilesThatAreTaken_NeedNoRuns) {
  Sessions sessions({.width = 4}, {.max_rows = 8});
  OpenThree(sessions);
  EXPECT_THAT(sessions.ran, IsEmpty());
}

TEST(SessionProfilesTest, OtherErrors_AreAnswersAndNoReasonToOpenAgain) {
  Sessions sessions({.width = 4}, {.max_rows = 8});
  sessions.log.FailOpen(2);
  EXPECT_THAT(sessions.profiled.Open(0, sessions.stream).status().ToString(),
              HasSubstr("the engine does not open it"));
  EXPECT_EQ(sessions.told.size(), 2U);
}

// The provider's parser takes the first ':' for the end of a name.
TEST(SessionProfilesTest, NamesThatCannotBeSaid_AreNot) {
  for (const char* name : {"x:0", "a,b"}) {
    ModelSignature signature;
    signature.inputs = {{name, DataType::kFp32, {-1, 3}}, {"y", DataType::kFp32, {-1, 3}}};
    EXPECT_THAT(ProfileOptionsOf(signature, {{{1, 3}, {8, 3}, {8, 3}}, {{1, 3}, {8, 3}, {8, 3}}}),
                IsEmpty())
        << name;
  }
  Sessions sessions({.x = "x:0", .width = 4}, {.max_rows = 8});
  OpenThree(sessions);
  EXPECT_THAT(sessions.told, ElementsAre("none", "{}", "{}", "{}"));
  EXPECT_THAT(sessions.ran, SizeIs(6));
}

// Zeros may be what its kernel on the CPU divides by.
TEST(SessionProfilesTest, ModelWithAnInputThatTheHostReads_IsNotRunOnZeros) {
  const QuietLog quiet;
  Sessions sessions({.width = 4, .host_input = HostInput::kTold}, {.max_rows = 8});
  sessions.refuses_profiles = true;
  OpenThree(sessions);
  EXPECT_THAT(sessions.ran, IsEmpty());
}

TEST(SessionProfilesTest, ModelThatDoesNotRunOnZeros_IsServedAllTheSame) {
  const QuietLog quiet;
  Sessions sessions({.width = 4}, {.max_rows = 8});
  sessions.refuses_profiles = true;
  sessions.log.FailRun(2);
  EXPECT_TRUE(sessions.profiled.Open(0, sessions.stream).ok());
  EXPECT_THAT(sessions.ran, ElementsAre("[8,4]"));
}

TEST(SessionProfilesTest, SessionThatLosesTheDevice_IsLeftToTheProcess) {
  const QuietLog quiet;
  Sessions sessions({.width = 4}, {.max_rows = 8});
  sessions.refuses_profiles = true;
  sessions.gpu.FaultWork(1, gpu::Error::kIllegalAddress);
  EXPECT_EQ(sessions.profiled.Open(0, sessions.stream).status().code(), StatusCode::kUnavailable);
  EXPECT_EQ(sessions.log.live.load(), 1) << "what it has on the device may not be asked for";
}

// Whichever call of the driver's fails: nothing of the runs is left. Of the calls of all threads it is
// not always the end of a run that fails: so each end does by itself.
TEST(SessionProfilesTest, RunsAtBothEnds_GiveBackWhatTheyTookWhateverFails) {
  const QuietLog quiet;
  for (const std::string_view call : {"", "SynchronizeStream"}) {
    int failed = 0;
    for (int nth = 1; nth < 40; ++nth) {
      Sessions sessions({.width = 4}, {.max_rows = 8});
      sessions.refuses_profiles = true;
      const size_t before = sessions.gpu.live_objects();
      sessions.gpu.FailCall(call, nth, gpu::Error::kInvalidValue);
      auto opened = sessions.profiled.Open(0, sessions.stream);
      failed += opened.ok() ? 0 : 1;
      sessions.gpu.FailCall("", 0, gpu::Error::kSuccess);
      if (opened.ok()) opened->reset();
      if (sessions.device->health().is_faulted()) continue;  // nobody knows what is over
      EXPECT_EQ(sessions.log.live.load(), 0) << call << nth;
      // A call that gives something back may be the one.
      EXPECT_LE(sessions.gpu.live_objects(), before + 1) << call << nth;
    }
    if (call.empty()) continue;
    EXPECT_EQ(failed, 2) << "the ends of runs that are not known";
  }
}

class KeptEnginesTest : public ::testing::Test {
 protected:
  KeptEnginesTest() {
    directory_ =
        std::filesystem::temp_directory_path() / ("penstock-engines-" + std::to_string(::getpid()));
    std::filesystem::create_directories(directory_ / "deeper");
    std::ofstream(directory_ / "a.engine") << "cut";
    std::ofstream(directory_ / "deeper" / "a.profile") << "x";
  }
  ~KeptEnginesTest() override { std::filesystem::remove_all(directory_); }

  std::filesystem::path directory_;
  const QuietLog quiet_;
};

TEST_F(KeptEnginesTest, OneThatIsCutShort_IsRemovedAndBuiltAgain) {
  Sessions sessions({.width = 4}, {.max_rows = 8}, directory_);
  sessions.cut_short = directory_ / "a.engine";
  OpenThree(sessions);
  EXPECT_EQ(sessions.told.size(), 5U);
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

TEST_F(KeptEnginesTest, TimesThatAreCutShort_AreRemovedLikewise) {
  Sessions sessions({.width = 4}, {.max_rows = 8}, directory_);
  sessions.cut_short = directory_ / "a.engine";
  sessions.says = "TensorRT EP could not create timing cache: cache_sm90.timing";
  OpenThree(sessions);
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

// Told of no shapes the provider reads its engine in the first run.
TEST_F(KeptEnginesTest, OneThatTheFirstRunFindsCutShort_LikeWise) {
  Sessions sessions({.x = "x:0", .width = 4}, {.max_rows = 8}, directory_);
  sessions.log.FailRun(1, "TensorRT EP Failed to Build Engine.");
  OpenThree(sessions);
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
}

// Where no engine is kept those are words of a build that has failed.
TEST_F(KeptEnginesTest, TimesOfABuildThatFails_Stay) {
  std::filesystem::rename(directory_ / "a.engine", directory_ / "a.timing");
  Sessions sessions({.x = "x:0", .width = 4}, {.max_rows = 8}, directory_);
  sessions.log.FailRun(1, "TensorRT EP Failed to Build Engine.");
  EXPECT_FALSE(sessions.profiled.Open(0, sessions.stream).ok());
  EXPECT_TRUE(std::filesystem::exists(directory_ / "a.timing"));
}

TEST_F(KeptEnginesTest, ThatDoNotOpenAfterwards_AreTheLoadsReason) {
  Sessions sessions({.width = 4}, {.max_rows = 8}, directory_);
  sessions.cut_short = directory_.parent_path();  // whatever is removed
  EXPECT_THAT(sessions.profiled.Open(0, sessions.stream).status().ToString(),
              HasSubstr("could not deserialize engine from cache"));
  EXPECT_EQ(sessions.told.size(), 3U);  // none, and twice
  EXPECT_FALSE(sessions.profiled.Open(0, sessions.stream).ok());
  EXPECT_EQ(sessions.told.size(), 4U);  // once for all
}

// The provider says the same of an engine that the device has no room for.
TEST_F(KeptEnginesTest, ThatTheDeviceHasNoRoomFor_Stay) {
  std::filesystem::resize_file(directory_ / "a.engine", size_t{1} << 40);  // a hole
  Sessions sessions({.width = 4}, {.max_rows = 8}, directory_);
  sessions.cut_short = directory_ / "a.engine";
  const Status status = sessions.profiled.Open(0, sessions.stream).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << status.ToString();
  EXPECT_THAT(std::string(status.message()), HasSubstr("could not deserialize"));
  EXPECT_TRUE(std::filesystem::exists(directory_ / "a.engine"));
}

TEST_F(KeptEnginesTest, OfALostDevice_Stay) {
  Sessions sessions({.width = 4}, {.max_rows = 8}, directory_);
  sessions.cut_short = directory_ / "a.engine";
  sessions.gpu.FailCall("MemoryInfo", 1, gpu::Error::kIllegalAddress);
  EXPECT_EQ(sessions.profiled.Open(0, sessions.stream).status().code(), StatusCode::kUnavailable);
  EXPECT_TRUE(std::filesystem::exists(directory_ / "a.engine"));
}

TEST_F(KeptEnginesTest, ThatOpen_Stay) {
  Sessions sessions({.width = 4}, {.max_rows = 8}, directory_);
  OpenThree(sessions);
  sessions.log.FailOpen(1);
  EXPECT_FALSE(sessions.profiled.Open(0, sessions.stream).ok());
  EXPECT_TRUE(std::filesystem::exists(directory_ / "a.engine"));
}

}  // namespace
}  // namespace penstock::ort
