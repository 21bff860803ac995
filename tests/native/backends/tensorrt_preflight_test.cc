// Whether TensorRT can be used, asked of a driver and a library that are made for it: each thing
// that a machine may lack is one reason, and a vendor's crash is not ours.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "backend_under_test.h"
#include "backends/registry.h"
#include "backends/tensorrt/engine_module.h"
#include "backends/tensorrt/library_search.h"
#include "backends/tensorrt/preflight.h"
#include "testing/quiet_log.h"

namespace penstock::tensorrt {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

class TensorRtPreflightTest : public testing::Test {
 protected:
  TensorRtPreflightTest() {
    fs::copy(PENSTOCK_FAKE_CUDA, driver_.Path("libcuda.so.1"));
    SetDriver("devices 2");
    setenv("LD_LIBRARY_PATH", driver_.path().c_str(), 1);
    options_.program = PENSTOCK_TENSORRT_PROBE;
    options_.accepted = {{11, 1}, {10, 16}};
  }
  ~TensorRtPreflightTest() override {
    for (const char* name : {"FAKE_CUDA", "FAKE_TENSORRT", "LD_LIBRARY_PATH"}) unsetenv(name);
  }

  static void SetDriver(const char* what) { setenv("FAKE_CUDA", what, 1); }

  // A library of that name, and what it says of its version.
  std::string Library(const std::string& name, const char* version) {
    setenv("FAKE_TENSORRT", version, 1);
    const std::string path = library_.Path(name);
    fs::copy(PENSTOCK_FAKE_NVINFER, path);
    options_.candidates.push_back(path);
    return path;
  }

  // `code`: UNAVAILABLE of what may be there for another process, later.
  std::string Reason(StatusCode code = StatusCode::kFailedPrecondition) {
    const auto found = Preflight(options_);
    EXPECT_EQ(found.status().code(), code);
    EXPECT_THAT(std::string(found.status().message()), Not(HasSubstr(library_.path())));
    return std::string(found.status().message());
  }

  PreflightOptions options_;
  const TempDir driver_, library_;
};

TEST_F(TensorRtPreflightTest, LibraryThatAnAdapterDrives_IsFound) {
  const std::string path = Library("libnvinfer.so.11", "11 4 0 106");
  const auto found = Preflight(options_);
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->path, path);
  EXPECT_EQ(found->version.Text(), "11.4.0.106");
}

TEST_F(TensorRtPreflightTest, AnswerBehindAMegabyteOfVendorsText_IsNotLost) {
  const QuietLog quiet;
  Library("libnvinfer.so.11", "flood 11 1 0 106");
  const auto found = Preflight(options_);
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->version.Text(), "11.1.0.106");
}

TEST_F(TensorRtPreflightTest, ProcessThatKeepsTheOutput_DoesNotHoldTheAnswer) {
  const std::string fifo = library_.Path("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  setenv("FAKE_TENSORRT_FIFO", fifo.c_str(), 1);
  Library("libnvinfer.so.11", "leave 11 1 0 106");
  const auto found = Preflight(options_);
  close(open(fifo.c_str(), O_WRONLY | O_CLOEXEC));  // the process is there until now, and ends
  unsetenv("FAKE_TENSORRT_FIFO");
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->version.Text(), "11.1.0.106");
}

TEST_F(TensorRtPreflightTest, RememberedAnswer_IsThatOfTheSameQuestion) {
  const std::string path = Library("libnvinfer.so.11", "11 1 0 106");
  ASSERT_TRUE(RememberedPreflight(options_).ok());
  SetDriver("devices 0");
  EXPECT_TRUE(RememberedPreflight(options_).ok()) << "nobody was asked again";
  options_.accepted = {{11, 2}};
  EXPECT_EQ(RememberedPreflight(options_).status().message(), "the CUDA driver finds no device");
  SetDriver("devices 2");
  EXPECT_EQ(RememberedPreflight(options_).status().message(), "the CUDA driver finds no device");
  EXPECT_THAT(std::string(Preflight(options_).status().message()), HasSubstr("too old"));
}

TEST_F(TensorRtPreflightTest, NoDriver_IsTheReasonWhateverElseIsThere) {
  Library("libnvinfer.so.11", "11 1 0 106");
  std::ofstream(driver_.Path("libcuda.so.1")) << "not a library";
  EXPECT_THAT(Reason(StatusCode::kUnavailable),
              StartsWith("there is no CUDA driver on this machine"));
}

TEST_F(TensorRtPreflightTest, DriverWithoutDevices_IsTheReason) {
  Library("libnvinfer.so.11", "crash");  // it is not come to
  for (const char* what : {"devices 0", "error 100"}) {
    SetDriver(what);
    EXPECT_EQ(Reason(StatusCode::kUnavailable), "the CUDA driver finds no device");
  }
}

TEST_F(TensorRtPreflightTest, DriverThatDoesNotStart_IsNamedWithItsError) {
  Library("libnvinfer.so.11", "crash");
  SetDriver("error 803");
  EXPECT_EQ(Reason(StatusCode::kUnavailable), "the CUDA driver does not start: its error 803");
}

TEST_F(TensorRtPreflightTest, CrashOfTheDriver_IsTheProbesAlone) {
  Library("libnvinfer.so.11", "crash");
  SetDriver("crash");
  EXPECT_EQ(Reason(), "the probe of it was killed by SIGABRT while starting the CUDA driver");
}

TEST_F(TensorRtPreflightTest, DriverThatHangs_IsGivenUp) {
  Library("libnvinfer.so.11", "crash");
  SetDriver("hang");
  options_.limit_ms = 500;
  // On a busy machine it may not have come far.
  EXPECT_THAT(Reason(), StartsWith("the probe of it did not end within 500 ms, while "));
}

TEST_F(TensorRtPreflightTest, CrashOfTheLibrary_IsTheProbesAlone) {
  Library("libnvinfer.so.11", "crash");
  EXPECT_EQ(Reason(),
            "the probe of it was killed by SIGABRT while asking TensorRT's libnvinfer.so.11 for "
            "its version");
}

TEST_F(TensorRtPreflightTest, LibraryOfAnotherMajor_IsRefused) {
  Library("libnvinfer.so.12", "12 0 0 1");
  EXPECT_EQ(Reason(),
            "TensorRT 12.0.0.1 was found, which is of another major version: needed is 11.1 or a "
            "later 11.x or 10.16 or a later 10.x");
}

TEST_F(TensorRtPreflightTest, LibraryOlderThanTheHeaders_IsRefused) {
  Library("libnvinfer.so.10", "10 6 0 26");
  EXPECT_THAT(Reason(), StartsWith("TensorRT 10.6.0.26 was found, which is too old"));
}

TEST_F(TensorRtPreflightTest, MissingLibrary_IsOneReason) {
  options_.candidates = {library_.Path("libnvinfer.so.11"), library_.Path("libnvinfer.so.10")};
  EXPECT_THAT(Reason(), StartsWith("TensorRT's runtime cannot be opened"));
}

TEST_F(TensorRtPreflightTest, CandidateThatDoesNotOpen_IsPassedOver) {
  std::ofstream(library_.Path("libnvinfer.so.10")) << "not a library";
  options_.candidates = {library_.Path("libnvinfer.so.10")};
  const std::string path = Library("libnvinfer_lean.so.11", "11 1 0 106");
  const auto found = Preflight(options_);
  ASSERT_TRUE(found.ok()) << found.status().ToString();
  EXPECT_EQ(found->path, path);
}

TEST_F(TensorRtPreflightTest, LibraryThatIsNoTensorRt_IsRefused) {
  const std::string path = library_.Path("libnvinfer.so.11");
  fs::copy(PENSTOCK_FAKE_CUDA, path);
  options_.candidates = {path};
  EXPECT_EQ(Reason(), "libnvinfer.so.11 is no TensorRT of version 10 or later");
}

TEST_F(TensorRtPreflightTest, MissingProbe_IsSaid) {
  options_.program = library_.Path("no_such_program");
  EXPECT_EQ(Reason(), "the probe of it cannot be started: No such file or directory");
}

TEST_F(TensorRtPreflightTest, PlugIn_SaysOneReason) {
  std::ofstream(driver_.Path("libcuda.so.1")) << "not a library";
  BackendRegistry registry({PENSTOCK_PLUGIN_DIRECTORY});
  const Status status = registry.Get("tensorrt").status();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              StartsWith("TensorRT cannot be used: there is no CUDA driver on this machine"));
}

TEST_F(TensorRtPreflightTest, PlugIn_RefusesUnknownOptions) {
  BackendRegistry registry({PENSTOCK_PLUGIN_DIRECTORY});
  registry.SetOptions("tensorrt", {{"librarry", "x"}});
  const Status status = registry.Get("tensorrt").status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("option 'librarry' is not known"));
}

class TensorRtSearchTest : public testing::Test {
 protected:
  std::string Touch(const std::string& name) {
    fs::create_directories(fs::path(place_.Path(name)).parent_path());
    std::ofstream(place_.Path(name)) << "x";
    return place_.Path(name);
  }

  const TempDir place_;
};

TEST_F(TensorRtSearchTest, ConfiguredFile_IsTheOnlyCandidate) {
  const std::string file = Touch("mine.so");
  const auto found = LibraryCandidates({.library = file, .root = place_.path(), .directories = {}});
  ASSERT_TRUE(found.ok());
  EXPECT_THAT(*found, ElementsAre(file));
}

TEST_F(TensorRtSearchTest, ConfiguredDirectory_GivesWhatItHolds_FullAndNewestFirst) {
  const std::string lean = Touch("libnvinfer_lean.so.11");
  const std::string ten = Touch("libnvinfer.so.10");
  const std::string eleven = Touch("libnvinfer.so.11");
  Touch("libnvinfer_plugin.so.11");
  const auto found = LibraryCandidates({.library = place_.path(), .root = {}, .directories = {}});
  ASSERT_TRUE(found.ok());
  EXPECT_THAT(*found, ElementsAre(eleven, ten, lean));
}

TEST_F(TensorRtSearchTest, ConfiguredPlaceWithoutIt_IsRefusedWithoutItsPath) {
  for (const std::string& library : {place_.path(), place_.Path("nowhere")}) {
    const auto found = LibraryCandidates({.library = library, .root = {}, .directories = {}});
    EXPECT_EQ(found.status().code(), StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(found.status().message()),
                AllOf(HasSubstr("configured for it"), Not(HasSubstr(place_.path()))));
  }
}

TEST_F(TensorRtSearchTest, RootThenPackagesThenTheLoader) {
  const std::string root = Touch("root/lib/libnvinfer.so.10");
  const std::string package = Touch("pip/libnvinfer_lean.so.11");
  const auto found = LibraryCandidates(
      {.library = {}, .root = place_.Path("root"), .directories = {place_.Path("pip")}});
  ASSERT_TRUE(found.ok());
  EXPECT_THAT(*found, ElementsAre(root, package, "libnvinfer.so.11", "libnvinfer.so.10",
                                  "libnvinfer_lean.so.11", "libnvinfer_lean.so.10"));
  EXPECT_FALSE(IsLean(root));
  EXPECT_TRUE(IsLean(package));
}

TEST_F(TensorRtSearchTest, Places_AreNamedByKind) {
  const SearchOptions options{.library = {}, .root = "/opt/trt", .directories = {"/pip/", "/two"}};
  EXPECT_EQ(PlaceOf(options, "/opt/trt/lib/libnvinfer.so.11"), "the one of $TensorRT_ROOT");
  EXPECT_EQ(PlaceOf(options, "/pip/libnvinfer.so.11"), "the one of pip's packages");
  EXPECT_EQ(PlaceOf(options, "/two/libnvinfer_lean.so.11"), "the one of pip's packages");
  EXPECT_EQ(PlaceOf(options, "libnvinfer.so.11"), "the one that the loader finds");
  EXPECT_EQ(PlaceOf({.library = "/mine", .root = "/mine", .directories = {"/mine"}},
                    "/mine/libnvinfer.so.11"),
            "the one configured");
}

TEST_F(TensorRtSearchTest, PlugIns_AreThoseBesideTheLibrary) {
  EXPECT_EQ(PluginLibrary("/opt/trt/lib/libnvinfer.so.10.16.0", 10),
            "/opt/trt/lib/libnvinfer_plugin.so.10");
  EXPECT_EQ(PluginLibrary("/pip/libnvinfer_lean.so.11", 11), "/pip/libnvinfer_vc_plugin.so.11");
  EXPECT_EQ(PluginLibrary("libnvinfer.so.11", 11), "libnvinfer_plugin.so.11");
}

TEST_F(TensorRtSearchTest, Adapters_AreReadFromTheirNames) {
  for (const char* name : {"penstock_tensorrt_engine_10_16.so", "penstock_tensorrt_engine_11_1.so",
                           "penstock_tensorrt_engine_11_1.so.bak", "penstock_openvino_engine.so"}) {
    Touch(name);
  }
  std::vector<std::string> versions;
  for (const HeaderVersion& each : FindAdapters(place_.path())) versions.push_back(each.Text());
  EXPECT_THAT(versions, ElementsAre("11.1", "10.16"));
  EXPECT_THAT(FindAdapters(place_.Path("nowhere")), IsEmpty());
}

}  // namespace
}  // namespace penstock::tensorrt
