// How the openvino backend finds its engine, and what it says where it does not.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "backend_under_test.h"
#include "backends/registry.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

Status Open(const BackendOptions& options) {
  BackendRegistry registry({PENSTOCK_PLUGIN_DIRECTORY});
  registry.SetOptions("openvino", options);
  return registry.Get("openvino").status();
}

TEST(OpenVinoEngineTest, MissingLibrary_NamesTheVersionAndThePackage) {
  const TempDir empty;
  const Status status = Open({{"library", empty.path()}});
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("install the package openvino==20"), Not(HasSubstr(empty.path()))));
}

TEST(OpenVinoEngineTest, LibraryThatDoesNotOpen_IsAFailedPrecondition) {
  const TempDir directory;
  const std::string file = directory.Path("libopenvino.so");
  std::ofstream(file) << "this is not a library";
  const Status status = Open({{"library", file}});
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("the server's log says why"), Not(HasSubstr(directory.path()))));
}

TEST(OpenVinoEngineTest, UnknownOption_IsRefused) {
  const Status status = Open({{"librarry", "x"}});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("option 'librarry' is not known to the openvino backend"));
}

}  // namespace
}  // namespace penstock
