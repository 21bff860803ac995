// What is told of the engine's providers of GPUs that cannot be used.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <initializer_list>
#include <string>

#include "backend_under_test.h"
#include "backends/onnxruntime/cuda_libraries.h"
#include "backends/onnxruntime/provider_errors.h"

namespace penstock::ort {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kAgain =
    "pip uninstall onnxruntime onnxruntime-gpu, then pip install onnxruntime-gpu";

void LayOut(const TempDir& directory, std::initializer_list<const char*> names) {
  for (const char* name : names) std::ofstream(directory.Path(name)) << "x";
}

TEST(OrtProviderErrorTest, LibraryWithoutProviders_IsToBeReplaced) {
  const TempDir directory;
  LayOut(directory, {"libonnxruntime.so.1.32.0", "libonnxruntime_providers_shared.so"});
  for (const std::string& library : {directory.Path("libonnxruntime.so.1.32.0"), std::string()}) {
    EXPECT_EQ(HowToGetProviders(library),
              "install the package onnxruntime-gpu in place of onnxruntime, or name its library by "
              "--backend-config onnxruntime,library=PATH");
  }
}

// Then installing onnxruntime-gpu is what the user just did.
TEST(OrtProviderErrorTest, BothPackagesInOneDirectory_AreNamedWithWhatToDo) {
  const TempDir directory;
  LayOut(directory, {"libonnxruntime.so.1.32.0", "libonnxruntime.so.1.31.1",
                     "libonnxruntime_providers_cuda.so"});
  EXPECT_EQ(HowToGetProviders(directory.Path("libonnxruntime.so.1.32.0")),
            std::string("onnxruntime lies where onnxruntime-gpu does (libonnxruntime.so.1.32.0 was "
                        "opened, beside libonnxruntime.so.1.31.1 and "
                        "libonnxruntime_providers_cuda.so): ") +
                kAgain);
}

TEST(OrtProviderErrorTest, BothPackagesOfOneVersion_AreToldByTheProvidersFile) {
  const TempDir directory;
  LayOut(directory, {"libonnxruntime.so.1.31.1", "libonnxruntime_providers_cuda.so"});
  EXPECT_THAT(HowToGetProviders(directory.Path("libonnxruntime.so.1.31.1")),
              AllOf(HasSubstr("(libonnxruntime.so.1.31.1 was opened, beside "
                              "libonnxruntime_providers_cuda.so): "),
                    HasSubstr(kAgain), Not(HasSubstr(directory.path()))));
}

std::string Missing(const std::string& file, const CudaVersions& versions) {
  return ProviderFailure(
      "/onnxruntime_src/onnxruntime/core/provider_bridge_ort.cc:1778 Failed to load library "
      "/a/b/libonnxruntime_providers_cuda.so with error: " +
          file + ": cannot open shared object file: No such file or directory\n",
      versions);
}

constexpr const char* kNoSuchFile = ": cannot open shared object file: No such file or directory";

TEST(OrtProviderErrorTest, LibraryOfCudasThatIsMissing_IsInItsPackages) {
  for (const char* file : {"libcublasLt.so.13", "libcudnn.so.9", "libnvrtc.so.13"}) {
    EXPECT_EQ(Missing(file, {13000, 0}),
              std::string("Failed to load library libonnxruntime_providers_cuda.so with error: ") +
                  file + kNoSuchFile +
                  "; CUDA's libraries: pip install 'onnxruntime-gpu[cuda,cudnn]' nvidia-cublas, or "
                  "CUDA's toolkit");
  }
}

TEST(OrtProviderErrorTest, LibraryOfTensorrtsThatIsMissing_IsInThePackageOfItsMajorVersion) {
  for (const char* stem : {"libnvinfer", "libnvonnxparser", "libnvinfer_plugin"}) {
    const std::string ten = Missing(std::string(stem) + ".so.10", {13000, 0});
    EXPECT_THAT(ten, AllOf(HasSubstr("; TensorRT 10: pip install 'tensorrt-cu13<11', or "
                                     "tensorrt-cu12 with a package for CUDA 12"),
                           Not(HasSubstr("onnxruntime-gpu["))));
    EXPECT_THAT(Missing(std::string(stem) + ".so.11", {}), HasSubstr("'tensorrt-cu13<12'"));
  }
}

// As where one of the packages was uninstalled, and took a file that both have.
TEST(OrtProviderErrorTest, FileOfTheEnginesThatIsMissing_IsInstalledAgain) {
  EXPECT_THAT(Missing("/a/b/libonnxruntime_providers_shared.so", {13000, 0}),
              AllOf(HasSubstr(": libonnxruntime_providers_shared.so: cannot open"),
                    HasSubstr(std::string("; ") + kAgain), Not(HasSubstr("nvidia-cublas"))));
  EXPECT_THAT(Missing("libstdc++.so.7", {13000, 0}), EndsWith(kNoSuchFile));
}

TEST(OrtProviderErrorTest, DriverThatIsTooOldForTheLibraries_IsTheReason) {
  const std::string too_old =
      "; the driver has CUDA 12.2, and ONNX Runtime's provider needs 13: a newer driver, or a "
      "package for CUDA 12";
  for (const char* file : {"libcublasLt.so.13", "libcublas.so.13", "libcudart.so.13"}) {
    EXPECT_THAT(Missing(file, {12020, 0}), AllOf(EndsWith(too_old), Not(HasSubstr("pip install"))));
    EXPECT_THAT(Missing(file, {13000, 0}), Not(HasSubstr("driver has")));
  }
  // Numbers of their own.
  EXPECT_THAT(Missing("libcurand.so.13", {12020, 0}), Not(HasSubstr("driver has")));
  EXPECT_EQ(ProviderFailure("CUDA failure 35: CUDA driver version is insufficient", {12020, 13000}),
            "CUDA failure 35: CUDA driver version is insufficient" + too_old);
}

TEST(OrtProviderErrorTest, OtherFailures_HaveTheDriversVersionWhereItMayBeThat) {
  const std::string symbol =
      "Failed to load library libx.so with error: undefined symbol: cuTensorMapEncodeTiled";
  EXPECT_EQ(ProviderFailure(symbol, {11080, 0}), symbol + "; the driver has CUDA 11.8");
  EXPECT_EQ(ProviderFailure(symbol, {}), symbol);
  EXPECT_EQ(ProviderFailure("CUDA failure 2: out of memory", {13010, 13000}),
            "CUDA failure 2: out of memory; the driver has CUDA 13.1");
  EXPECT_EQ(ProviderFailure("Invalid value: x", {13000, 13000}), "Invalid value: x");
}

TEST(OrtProviderErrorTest, VersionOfTheProvider_IsThatOfTheRuntimeItIsLinkedWith) {
  const std::string provider = PENSTOCK_FAKE_ORT_PROVIDER;
  const std::string library = provider.substr(0, provider.rfind('/')) + "/libonnxruntime.so.1";
  EXPECT_EQ(ProviderCudaVersion(library), 0) << "it is not open";
  void* opened = dlopen(provider.c_str(), RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(opened, nullptr);
  EXPECT_EQ(ProviderCudaVersion(library), 13000);
  dlclose(opened);
  EXPECT_EQ(ProviderCudaVersion("/nowhere/libonnxruntime.so.1"), 0);
}

}  // namespace
}  // namespace penstock::ort
