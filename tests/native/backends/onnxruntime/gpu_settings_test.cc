// What a model's configuration says of GPUs: Triton's names, and what is not the model's to say.
#include "backends/onnxruntime/gpu_settings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace penstock::ort {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

GpuSettings Read(std::map<std::string, std::string> parameters) {
  parameters["device_kind"] = "gpu";
  auto settings = ReadGpuSettings(parameters);
  EXPECT_TRUE(settings.ok()) << settings.status().ToString();
  return settings.ok() && settings->has_value() ? **settings : GpuSettings{};
}

std::string WhyRefused(std::map<std::string, std::string> parameters) {
  parameters["device_kind"] = "gpu";
  const auto settings = ReadGpuSettings(parameters);
  return settings.ok() ? "" : settings.status().ToString();
}

TEST(GpuSettingsTest, WithoutAKind_ItIsNotOnAGpu) {
  const auto settings = ReadGpuSettings({{"intra_op_thread_count", "2"}});
  ASSERT_TRUE(settings.ok());
  EXPECT_FALSE(settings->has_value());
}

TEST(GpuSettingsTest, RequestsShareBatches_WhereTheServerSaysSo) {
  EXPECT_TRUE(Read({{"dynamic_batching", "1"}}).shares_batches);
  EXPECT_FALSE(Read({{"dynamic_batching", "0"}}).shares_batches);
  EXPECT_FALSE(Read({}).shares_batches);
}

TEST(GpuSettingsTest, WhatIsForGpus_NeedsTheKind) {
  for (const char* name :
       {"gpu_mem_limit", "cuda.use_tf32", "tensorrt.trt_fp16_enable", "device"}) {
    const auto settings = ReadGpuSettings({{name, "1"}});
    EXPECT_THAT(settings.status().ToString(),
                AllOf(HasSubstr(name),
                      HasSubstr("needs an instance_group of KIND_GPU (instance_group { kind: ")));
  }
}

TEST(GpuSettingsTest, Defaults_AreCudaWithABoundedSearchAndArena) {
  const GpuSettings settings = Read({});
  ASSERT_EQ(settings.providers.size(), 1U);
  EXPECT_EQ(settings.providers[0].provider, Provider::kCuda);
  EXPECT_THAT(settings.providers[0].values,
              AllOf(Contains(Pair("cudnn_conv_algo_search", "HEURISTIC")),
                    Contains(Pair("arena_extend_strategy", "kSameAsRequested"))));
}

TEST(GpuSettingsTest, Tensorrt_GoesBeforeCuda) {
  const GpuSettings settings = Read({{"accelerators", "tensorrt"},
                                     {"tensorrt.precision_mode", "FP16"},
                                     {"tensorrt.max_workspace_size_bytes", "1073741824"},
                                     {"tensorrt.trt_engine_cache_enable", "1"}});
  ASSERT_EQ(settings.providers.size(), 2U);
  EXPECT_EQ(settings.providers[0].provider, Provider::kTensorrt);
  EXPECT_EQ(settings.providers[1].provider, Provider::kCuda);
  EXPECT_THAT(settings.providers[0].values,
              AllOf(Contains(Pair("trt_fp16_enable", "True")),
                    Contains(Pair("trt_max_workspace_size", "1073741824")),
                    Contains(Pair("trt_engine_cache_enable", "True"))));
  EXPECT_THAT(settings.providers[0].values, Not(Contains(Key("precision_mode"))));
  EXPECT_TRUE(settings.keeps_engines);
}

TEST(GpuSettingsTest, ProvidersSettings_AreInTheirForms) {
  const GpuSettings settings = Read({{"accelerators", "tensorrt"},
                                     {"tensorrt.precision_mode", "BF16"},
                                     {"tensorrt.trt_auxiliary_streams", "-1"},
                                     {"tensorrt.trt_tactic_sources", "-CUBLAS,+JIT_CONVOLUTIONS"},
                                     {"tensorrt.trt_timing_cache_enable", "true"},
                                     {"tensorrt.trt_force_timing_cache", "1"},
                                     {"cuda.sdpa_kernel", "16"},
                                     {"cuda.use_ep_level_unified_stream", "1"}});
  EXPECT_THAT(settings.providers[0].values,
              AllOf(Contains(Pair("trt_bf16_enable", "True")),
                    Contains(Pair("trt_auxiliary_streams", "-1")),
                    Contains(Pair("trt_tactic_sources", "-CUBLAS,+JIT_CONVOLUTIONS")),
                    Contains(Pair("trt_force_timing_cache", "True"))));
  EXPECT_THAT(settings.providers[1].values,
              AllOf(Contains(Pair("sdpa_kernel", "16")),
                    Contains(Pair("use_ep_level_unified_stream", "1"))));
  EXPECT_TRUE(settings.keeps_timings);
  EXPECT_TRUE(settings.needs_cache());
  EXPECT_FALSE(settings.keeps_engines);
  EXPECT_FALSE(Read({{"accelerators", "tensorrt"}}).needs_cache());
}

// A session's memory is TensorRT's provider's there, which is bounded by neither.
TEST(GpuSettingsTest, ArenaOfCudaBesideTensorrt_IsRefusedByName) {
  for (const char* name : {"gpu_mem_limit", "cuda.gpu_mem_limit", "arena_extend_strategy"}) {
    EXPECT_THAT(WhyRefused({{"accelerators", "tensorrt"}, {name, "1"}}),
                AllOf(HasSubstr(std::string("parameter '") + name + "'"),
                      HasSubstr("has no effect with gpu_execution_accelerator 'tensorrt'")));
    EXPECT_EQ(WhyRefused({{"accelerators", "cuda"}, {name, "1"}}), "");
  }
  EXPECT_EQ(WhyRefused({{"accelerators", "tensorrt"}, {"other.gpu_mem_limit", "1"}}), "");
}

TEST(GpuSettingsTest, OlderParameters_WriteChoicesAsNumbers) {
  const GpuSettings settings = Read({{"cudnn_conv_algo_search", "0"},
                                     {"arena_extend_strategy", "0"},
                                     {"gpu_mem_limit", "4294967200"},
                                     {"do_copy_in_default_stream", "1"}});
  EXPECT_THAT(settings.providers[0].values,
              AllOf(Contains(Pair("cudnn_conv_algo_search", "EXHAUSTIVE")),
                    Contains(Pair("arena_extend_strategy", "kNextPowerOfTwo")),
                    Contains(Pair("gpu_mem_limit", "4294967200")),
                    Contains(Pair("do_copy_in_default_stream", "1"))));
}

TEST(GpuSettingsTest, Ranges_AreOneShapeOrThree) {
  const GpuSettings settings =
      Read({{"max_batch_size", "16"}, {"shape:ids", "1:64:128"}, {"shape:image", "3x224x224"}});
  EXPECT_EQ(settings.ranges.max_rows, 16U);
  const auto& ids = settings.ranges.ranges.at("ids");
  EXPECT_EQ(ids.least, Shape{1});
  EXPECT_EQ(ids.likely, Shape{64});
  EXPECT_EQ(ids.greatest, Shape{128});
  EXPECT_EQ(settings.ranges.ranges.at("image").least, (Shape{3, 224, 224}));
}

struct BadParameter {
  std::string name, value, why;
};

class BadGpuParameterTest : public ::testing::TestWithParam<BadParameter> {};

TEST_P(BadGpuParameterTest, IsRefusedByName) {
  EXPECT_THAT(WhyRefused({{GetParam().name, GetParam().value}}),
              AllOf(HasSubstr(GetParam().name), HasSubstr(GetParam().why)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadGpuParameterTest,
    ::testing::Values(
        BadParameter{"cudnn_conv_algo_search", "3", "0 (EXHAUSTIVE) or 1 (HEURISTIC) or 2"},
        BadParameter{"gpu_mem_limit", "much", "a number, got 'much'"},
        BadParameter{"gpu_mem_limit", "-1", "a number"},
        BadParameter{"cuda.use_tf32", "maybe", "0 or 1, got 'maybe'"},
        BadParameter{"do_copy_in_default_stream", "0",
                     "expected 1: with 0 the engine's copies race"},
        BadParameter{"cuda.do_copy_in_default_stream", "false", "got 'false'"},
        BadParameter{"cuda.do_copy_in_default_stream", "maybe", "0 or 1, got 'maybe'"},
        BadParameter{"cuda.user_compute_stream", "1", "the server gives the engine its streams"},
        BadParameter{"cuda.device_id", "1", "instance_group.gpus"},
        BadParameter{"cuda.enable_cuda_graph", "1", "belong to the thread that captured them"},
        BadParameter{"cuda.gpu_external_alloc", "1", "supported are arena_extend_strategy"},
        BadParameter{"cuda.use_ep_level_unified_stream", "0", "expected 1: the server gives each"},
        BadParameter{"cuda.sdpa_kernel", "flash", "a number, got 'flash'"},
        BadParameter{"tensorrt.precision_mode", "FP8", "FP32, FP16, BF16 or INT8"},
        BadParameter{"tensorrt.trt_auxiliary_streams", "-2", "a number, or -1"},
        BadParameter{"tensorrt.trt_tactic_sources", "CUDNN", "+NAME or -NAME"},
        BadParameter{"tensorrt.trt_tactic_sources", "+CUDNN,", "+NAME or -NAME"},
        BadParameter{"tensorrt.trt_tactic_sources", "+CUDNN2", "+NAME or -NAME"},
        BadParameter{"tensorrt.trt_tactic_sources", "", "+NAME or -NAME"},
        BadParameter{"memory.enable_memory_arena_shrinkage", "cpu:0", "is for KIND_CPU"},
        BadParameter{"tensorrt.trt_cuda_graph_enable", "1", "of one batch's size and memory"},
        BadParameter{"tensorrt.trt_engine_cache_path", "/tmp", "--engine-cache"},
        BadParameter{"tensorrt.trt_extra_plugin_lib_paths", "x.so", "loads no libraries"},
        BadParameter{"tensorrt.trt_profile_min_shapes", "x:1", "shape:NAME"},
        BadParameter{"tensorrt.trt_dump_subgraphs", "1", "supported are precision_mode"},
        BadParameter{"cuda_graphs", "1", "cannot be captured by others"},
        BadParameter{"shape:x", "1:2", "LEAST:LIKELY:GREATEST"},
        BadParameter{"shape:x", "1:2:0", "LEAST:LIKELY:GREATEST"},
        BadParameter{"shape:x", "", "LEAST:LIKELY:GREATEST"},
        BadParameter{"shape:x", "1x2x3x4x5x6x7x8x9x1x1x1x1x1x1x1x1", "LEAST:LIKELY:GREATEST"},
        BadParameter{"max_batch_size", "99999999", "max_batch_size"}));

TEST(GpuSettingsTest, SettingOfTensorrtWithoutIt_IsRefusedByName) {
  for (const char* accelerators : {"cuda", ""}) {
    EXPECT_THAT(
        WhyRefused({{"accelerators", accelerators}, {"tensorrt.trt_engine_cache_enable", "1"}}),
        AllOf(HasSubstr("'tensorrt.trt_engine_cache_enable'"),
              HasSubstr("needs gpu_execution_accelerator 'tensorrt'")));
  }
}

TEST(GpuSettingsTest, AcceleratorThatIsNotThere_IsRefusedByName) {
  EXPECT_THAT(WhyRefused({{"accelerators", "tensorrt,openvino"}}),
              AllOf(HasSubstr("gpu_execution_accelerator"), HasSubstr("'tensorrt' or 'cuda'"),
                    HasSubstr("got 'openvino'")));
}

}  // namespace
}  // namespace penstock::ort
