// What the ONNX Runtime backend refuses to load, and how it says so.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "backend_under_test.h"
#include "backends/onnxruntime/ort_model.h"
#include "onnx_writer.h"

namespace penstock::ort {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class OrtLoadTest : public testing::Test {
 protected:
  Result<std::unique_ptr<BackendModel>> Load() {
    const auto library = OrtLibrary::Open({PENSTOCK_ONNXRUNTIME_LIBRARY, 0});
    return OrtModel::Load(**library, options_, *ParseSettings(options_.parameters));
  }

  Result<std::unique_ptr<BackendModel>> Load(const OnnxWriter& model) {
    model.Write(options_.path);
    return Load();
  }

  void ExpectRefused(const Result<std::unique_ptr<BackendModel>>& model, StatusCode code,
                     const std::string& fragment) {
    ASSERT_FALSE(model.ok());
    EXPECT_EQ(model.status().code(), code);
    EXPECT_THAT(std::string(model.status().message()),
                AllOf(HasSubstr("model 'm' version 2"), HasSubstr(fragment),
                      Not(HasSubstr(directory_.path()))));
  }

  static OnnxWriter Identity() {
    OnnxWriter model;
    model.Input("x", DataType::kFp32, {"n"});
    model.Node("Identity", {"x"}, {"y"});
    model.Output("y", DataType::kFp32, {"n"});
    return model;
  }

  TempDir directory_;
  LoadOptions options_{"m", 2, directory_.Path("model.onnx"), directory_.path(), {}};
};

TEST_F(OrtLoadTest, SequenceOutput_IsRefusedWithTheFix) {
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Node("SequenceConstruct", {"x"}, {"probabilities"});
  model.SequenceOutput("probabilities", DataType::kFp32);
  ExpectRefused(Load(model), StatusCode::kUnimplemented,
                "output 'probabilities' is a sequence, which the inference protocol cannot carry");
  ExpectRefused(Load(), StatusCode::kUnimplemented, "zipmap=False");
}

TEST_F(OrtLoadTest, UnknownOperator_IsRefusedAsACustomOne) {
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Node("Frobnicate", {"x"}, {"y"});
  model.Output("y", DataType::kFp32, {"n"});
  const auto loaded = Load(model);
  ExpectRefused(loaded, StatusCode::kInvalidArgument, "Frobnicate");
  EXPECT_THAT(std::string(loaded.status().message()),
              HasSubstr("custom operators are not supported"));
}

TEST_F(OrtLoadTest, InputWithoutShape_IsRefusedByName) {
  OnnxWriter model;
  model.InputWithoutShape("x", DataType::kFp32);
  model.Node("Identity", {"x"}, {"y"});
  model.OutputWithoutShape("y", DataType::kFp32);
  ExpectRefused(Load(model), StatusCode::kUnimplemented,
                "input 'x' has no shape in the model file");
}

TEST_F(OrtLoadTest, MoreDimensionsThanSupported_AreRefused) {
  OnnxWriter model;
  const OnnxWriter::Dims dims(kMaxRank + 1, "1");
  model.Input("x", DataType::kFp32, dims);
  model.Node("Identity", {"x"}, {"y"});
  model.Output("y", DataType::kFp32, dims);
  ExpectRefused(Load(model), StatusCode::kUnimplemented, "input 'x' has 17 dimensions, at most 16");
}

// By the plug-in: where the model runs is one of its parameters.
TEST_F(OrtLoadTest, BadParameter_IsRefusedWithTheModel) {
  const std::vector<BackendUnderTest>& all = BackendsUnderTest();
  const auto row = std::find_if(all.begin(), all.end(),
                                [](const auto& each) { return each.name == "onnxruntime"; });
  const Result<Backend*> plugin = row->open();
  ASSERT_TRUE(plugin.ok()) << plugin.status().ToString();
  Identity().Write(options_.path);
  options_.parameters = {{"intra_op_thread_count", "many"}};
  ExpectRefused(
      (*plugin)->Load(options_), StatusCode::kInvalidArgument,
      "parameter 'intra_op_thread_count' of the onnxruntime backend: expected a number from 0 to "
      "1024, got 'many'");
}

TEST_F(OrtLoadTest, DamagedGraph_IsRefusedWithTheEnginesReason) {
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Node("Identity", {"nowhere"}, {"y"});
  model.Output("y", DataType::kFp32, {"n"});
  ExpectRefused(Load(model), StatusCode::kInvalidArgument, "cannot be loaded by ONNX Runtime 1.");
}

TEST_F(OrtLoadTest, ShortExternalData_IsRefused) {
  OnnxWriter::WriteFile(directory_.Path("w.bin"), "ww");
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Initializer("w", DataType::kFp32, {1}, "", "w.bin");
  model.Node("Add", {"x", "w"}, {"y"});
  model.Output("y", DataType::kFp32, {"n"});
  const auto loaded = Load(model);
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(std::string(loaded.status().message()), Not(HasSubstr(directory_.path())));
}

// The engine has no other way to take it than to map the file, which then must not shrink.
TEST_F(OrtLoadTest, ExternalDataOfAnInnerGraph_IsRefusedUnlessMappingIsAskedFor) {
  OnnxWriter::WriteFile(directory_.Path("w.bin"), "wwww");
  OnnxWriter branch;
  branch.Initializer("w", DataType::kFp32, {1}, "", "w.bin");
  branch.Node("Identity", {"w"}, {"y"});
  branch.Output("y", DataType::kFp32, {"1"});
  OnnxWriter model;
  model.Input("c", DataType::kBool, {"1"});
  model.Node("If", {"c"}, {"y"},
             {OnnxWriter::Graph("then_branch", branch), OnnxWriter::Graph("else_branch", branch)});
  model.Output("y", DataType::kFp32, {"1"});
  ExpectRefused(Load(model), StatusCode::kInvalidArgument,
                "external data 'w.bin' belongs to a graph inside the model's graph (of 'If', "
                "'Loop' or 'Scan') or to an attribute");
  options_.parameters = {{"map_external_data", "1"}};
  const auto mapped = Load(model);
  EXPECT_TRUE(mapped.ok()) << mapped.status().ToString();
}

// Every way to set up threads and memory gives a model that runs.
class OrtSettingsCombinationTest
    : public OrtLoadTest,
      public testing::WithParamInterface<std::map<std::string, std::string>> {};

TEST_P(OrtSettingsCombinationTest, LoadsAndRuns) {
  options_.parameters = GetParam();
  const auto model = Load(Identity());
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const auto instance = (*model)->CreateInstance({"m_0"});
  const auto data = BytesOf(std::vector<float>{1.0f, 2.0f});
  const auto outputs = RunBatch(**instance, {{"x", DataType::kFp32, Shape{2}, data}}, {0});
  ASSERT_TRUE(outputs.ok()) << outputs.status().ToString();
  EXPECT_EQ(outputs->front().data.size(), data.size());
}

using Parameters = std::map<std::string, std::string>;
INSTANTIATE_TEST_SUITE_P(
    Settings, OrtSettingsCombinationTest,
    testing::Values(Parameters{}, Parameters{{"intra_op_thread_count", "0"}},
                    Parameters{{"intra_op_thread_count", "2"}},
                    Parameters{{"execution_mode", "1"}, {"inter_op_thread_count", "2"}},
                    Parameters{{"execution_mode", "1"}, {"intra_op_thread_count", "0"}},
                    Parameters{{"graph_optimization_level", "2"}},
                    Parameters{{"enable_mem_arena", "0"}, {"enable_mem_pattern", "0"}},
                    Parameters{{"memory.enable_memory_arena_shrinkage", "cpu:0"}},
                    Parameters{{"session.disable_prepacking", "1"},
                               {"session.intra_op.allow_spinning", "1"}}));

}  // namespace
}  // namespace penstock::ort
