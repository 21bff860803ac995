// What the engine's providers of GPUs are given, and what is told of those that a library lacks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <string>
#include <vector>

#include "backend_under_test.h"
#include "backends/onnxruntime/cuda_libraries.h"
#include "backends/onnxruntime/engine_key.h"
#include "backends/onnxruntime/gpu_backend.h"
#include "backends/onnxruntime/gpu_settings.h"
#include "backends/onnxruntime/ort_device_session.h"
#include "backends/onnxruntime/ort_library.h"
#include "backends/onnxruntime/provider_errors.h"
#include "backends/onnxruntime/session_maker.h"
#include "gpu/driver_api.h"
#include "onnx_writer.h"

namespace penstock::ort {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Key;
using testing::Not;
using testing::Pair;

GpuSettings Read(std::map<std::string, std::string> parameters) {
  parameters["device_kind"] = "gpu";
  return **ReadGpuSettings(parameters);
}

TEST(OrtProviderTest, LibraryWithoutTheProvider_SaysWhatItHasAndHowToGetOne) {
  const OrtLibrary& library = **OrtLibrary::Open({PENSTOCK_ONNXRUNTIME_LIBRARY, 0});
  const Status refused = CheckProviders(library, "model 'm' version 1", Read({}));
  if (refused.ok()) GTEST_SKIP() << "the library that is tested with has the provider";
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.ToString(),
              AllOf(HasSubstr("model 'm' version 1: KIND_GPU needs CUDAExecutionProvider"),
                    HasSubstr(library.version()), HasSubstr("CPUExecutionProvider"),
                    HasSubstr("onnxruntime-gpu")));
}

// What fails so is tried again: the GPU may be there by then, and the model with it.
TEST(OrtProviderTest, MachineWithoutAGpu_IsUnavailable) {
  if (gpu::OpenDriverApi().ok()) GTEST_SKIP() << "there is a GPU";
  const OrtLibrary& library = **OrtLibrary::Open({PENSTOCK_ONNXRUNTIME_LIBRARY, 0});
  if (!library.gpu_api().ok()) GTEST_SKIP() << "the library that is tested with is too old";
  const TempDir directory;
  const LoadOptions options{"m", 1, directory.Path("model.onnx"), directory.path(), {}};
  OnnxWriter identity;
  identity.Input("x", DataType::kFp32, {"1"});
  identity.Output("y", DataType::kFp32, {"1"});
  identity.Node("Identity", {"x"}, {"y"});
  identity.Write(options.path);
  GpuBackend backend(library, {});
  const GpuSettings of_no_provider;  // any library has those
  const Status away = backend.Load(options, {}, of_no_provider).status();
  EXPECT_EQ(away.code(), StatusCode::kUnavailable);
  EXPECT_THAT(away.ToString(), HasSubstr("model 'm' version 1: KIND_GPU needs a GPU: "));
}

std::vector<std::string> told_of_run;

// A run that is given no word of it waits for its end, which is when the engine gives back what it has
// staged.
TEST(OrtProviderTest, RunsThatAreEnqueued_AloneAreToldNotToWait) {
  const OrtLibrary& library = **OrtLibrary::Open({PENSTOCK_ONNXRUNTIME_LIBRARY, 0});
  Api api = library.api();
  api.AddRunConfigEntry = [](RunOptions*, const char* name,
                             const char* value) noexcept -> ErrorStatus* {
    told_of_run.push_back(std::string(name) + "=" + value);
    return nullptr;
  };
  told_of_run.clear();
  EXPECT_TRUE(MakeRunOptions(library, api, RunEnd::kOver, "m").ok());
  EXPECT_THAT(told_of_run, IsEmpty());
  EXPECT_TRUE(MakeRunOptions(library, api, RunEnd::kEnqueued, "m").ok());
  EXPECT_THAT(told_of_run, ElementsAre("disable_synchronize_execution_providers=1"));
}

TEST(OrtProviderTest, Values_HaveTheDeviceAndABoundForTheArena) {
  OrtSessionOptions options;
  options.gpu = Read({});
  options.memory_limit_bytes = 12345;
  EXPECT_THAT(ProviderValues(options.gpu.providers[0], options, 3),
              AllOf(Contains(Pair("device_id", "3")), Contains(Pair("gpu_mem_limit", "12345"))));
  options.gpu = Read({{"gpu_mem_limit", "99"}});
  EXPECT_THAT(ProviderValues(options.gpu.providers[0], options, 0),
              Contains(Pair("gpu_mem_limit", "99")));
}

TEST(OrtProviderTest, EnginesAreKept_WhereTheServerSaysAndOnlyIfTheModelAsks) {
  OrtSessionOptions options;
  options.engine_directory = "/cache/key";
  options.gpu = Read({{"accelerators", "tensorrt"}});
  EXPECT_THAT(ProviderValues(options.gpu.providers[0], options, 0),
              Not(Contains(Key("trt_engine_cache_path"))));
  options.gpu = Read({{"accelerators", "tensorrt"}, {"tensorrt.trt_engine_cache_enable", "1"}});
  EXPECT_THAT(ProviderValues(options.gpu.providers[0], options, 0),
              Contains(Pair("trt_engine_cache_path", "/cache/key")));
}

TEST(OrtProviderTest, Messages_KeepNamesOfFilesWithoutTheirPlaces) {
  EXPECT_EQ(WithoutDirectories("Failed to load library /a/b/libx.so with error: '/c/liby.so.1'"),
            "Failed to load library libx.so with error: 'liby.so.1'");
  EXPECT_EQ(WithoutDirectories(""), "");
  EXPECT_EQ(WithoutDirectories("no path"), "no path");
}

// Without it they lie wherever the process was started.
TEST(OrtProviderTest, Timings_AreKeptBesideEnginesThatAreNot) {
  OrtSessionOptions options;
  options.engine_directory = "/cache/key";
  options.gpu = Read({{"accelerators", "tensorrt"}, {"tensorrt.trt_timing_cache_enable", "1"}});
  EXPECT_THAT(ProviderValues(options.gpu.providers[0], options, 0),
              AllOf(Contains(Pair("trt_timing_cache_path", "/cache/key")),
                    Not(Contains(Key("trt_engine_cache_path")))));
}

// A file for each name, and where it lies.
std::string Write(const TempDir& directory, std::initializer_list<const char*> names) {
  for (const char* name : names) std::ofstream(directory.Path(name)) << "x";
  return directory.path();
}

TEST(OrtProviderTest, Library_IsTheFileOfThatStem) {
  const TempDir directory;
  const std::string path =
      Write(directory, {"libcublas.so", "libcublas.so.13", "libcublas.so.13.0.1", "libother.so.1",
                        "libcublasLt.so.13"});
  EXPECT_THAT(
      LibrariesToOpen({"/nowhere", path}),
      ElementsAre(directory.Path("libcublasLt.so.13"), directory.Path("libcublas.so.13.0.1")));
}

// Which is right only the provider knows, by the names that it is linked with.
TEST(OrtProviderTest, LibrariesOfTwoVersions_AreOpenedBothAndOfEachTheFirst) {
  const TempDir one;
  const TempDir two;
  const TempDir three;
  const std::vector<std::string> directories = {Write(one, {"libcublas.so.12"}),
                                                Write(two, {"libcublas.so.13", "libcublas.so"}),
                                                Write(three, {"libcublas.so.12", "libcudart.so"})};
  EXPECT_THAT(LibrariesToOpen(directories),
              ElementsAre(three.Path("libcudart.so"), one.Path("libcublas.so.12"),
                          two.Path("libcublas.so.13")));
}

TEST(OrtProviderTest, TensorrtsParserAndPlugins_AreOpenedBehindIt) {
  const TempDir directory;
  const std::string path =
      Write(directory, {"libnvonnxparser.so.10", "libnvinfer_plugin.so.10", "libnvinfer.so.10",
                        "libnvinfer_builder_resource.so.10.1.0"});
  EXPECT_THAT(LibrariesToOpen({path}), ElementsAre(directory.Path("libnvinfer.so.10"),
                                                   directory.Path("libnvinfer_plugin.so.10"),
                                                   directory.Path("libnvonnxparser.so.10")));
}

// An engine of another model, of other shapes or of another device is another engine.
TEST(OrtProviderTest, EngineKey_ChangesWithWhatAnEngineIsMadeOf) {
  const TempDir directory;
  LoadOptions options;
  options.model_name = "m";
  options.path = directory.Path("model.onnx");
  options.model_directory = std::filesystem::path(options.path).parent_path();
  const auto key = [&](const std::string& version, const GpuSettings& settings,
                       const std::string& device) {
    gpu::DeviceProperties properties;
    properties.name = device;
    const auto made = EngineKey(version, options, {}, settings, properties);
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    return made.ok() ? *made : "";
  };
  std::ofstream(options.path) << "weights";
  const std::string first = key("1.31", Read({}), "H200");
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(key("1.31", Read({}), "H200"), first);
  EXPECT_NE(key("1.32", Read({}), "H200"), first);
  EXPECT_NE(key("1.31", Read({{"max_batch_size", "8"}}), "H200"), first);
  EXPECT_NE(key("1.31", Read({{"listed_rank:x", "2"}}), "H200"), first);
  EXPECT_NE(key("1.31", Read({{"shape:x", "4"}}), "H200"), first);
  EXPECT_NE(key("1.31", Read({{"cuda.use_tf32", "0"}}), "H200"), first);
  EXPECT_NE(key("1.31", Read({}), "H100"), first);
  std::ofstream(options.path) << "other weights";
  EXPECT_NE(key("1.31", Read({}), "H200"), first);
  std::filesystem::remove(options.path);
  EXPECT_EQ(EngineKey("1.31", options, {}, Read({}), {}).status().code(),
            StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace penstock::ort
