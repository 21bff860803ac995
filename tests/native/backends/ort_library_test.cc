// Which of several libraries of ONNX Runtime in a directory is opened.
#include "backends/onnxruntime/ort_library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>

#include "backend_under_test.h"

namespace penstock::ort {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

void MakeFiles(const TempDir& directory, std::initializer_list<const char*> names) {
  for (const char* name : names) std::ofstream(directory.Path(name)) << "x";
}

TEST(OrtLibraryNamesTest, LatestVersion_IsTheLastByItsNumbers) {
  const TempDir directory;
  MakeFiles(directory, {"libonnxruntime.so.1.9.0", "libonnxruntime.so.1.10.0",
                        "libonnxruntime.so.1.31.1", "libonnxruntime.so.1.4"});
  EXPECT_THAT(LibraryNames(directory.path()),
              ElementsAre("libonnxruntime.so.1.4", "libonnxruntime.so.1.9.0",
                          "libonnxruntime.so.1.10.0", "libonnxruntime.so.1.31.1"));
}

TEST(OrtLibraryNamesTest, LinksToOneFile_AreThatFile) {
  const TempDir directory;
  MakeFiles(directory, {"libonnxruntime.so.1.20.1"});
  namespace fs = std::filesystem;
  fs::create_symlink("libonnxruntime.so.1.20.1", directory.Path("libonnxruntime.so.1"));
  fs::create_symlink("libonnxruntime.so.1", directory.Path("libonnxruntime.so"));
  fs::create_symlink("gone", directory.Path("libonnxruntime.so.2"));
  EXPECT_THAT(LibraryNames(directory.path()), ElementsAre("libonnxruntime.so.1.20.1"));
}

TEST(OrtLibraryNamesTest, WhatIsNoLibrary_IsPassedOver) {
  const TempDir directory;
  MakeFiles(directory, {"libonnxruntime.so", "libonnxruntime.so.1.2.dbg", "libonnxruntime.so-old",
                        "libonnxruntime.so.", "libonnxruntime_providers_shared.so"});
  EXPECT_THAT(LibraryNames(directory.path()), ElementsAre("libonnxruntime.so"));
  EXPECT_THAT(LibraryNames("/nowhere"), IsEmpty());
}

}  // namespace
}  // namespace penstock::ort
