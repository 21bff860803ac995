// What is checked of a model file before the engine may open it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <protozero/pbf_reader.hpp>

#include "backend_under_test.h"
#include "backends/onnxruntime/model_file.h"
#include "onnx_writer.h"

namespace penstock::ort {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
namespace fs = std::filesystem;

class ModelFileTest : public testing::Test {
 protected:
  ModelFileTest() {
    fs::create_directories(directory_.Path("repository/m/1"));
    options_.model_name = "m";
    options_.version = 1;
    options_.model_directory = directory_.Path("repository/m");
    options_.path = directory_.Path("repository/m/1/model.onnx");
  }

  Result<ModelFileFacts> Inspect() { return InspectModelFile(options_); }

  Result<ModelFileFacts> InspectWithWeightsAt(const std::string& location) {
    OnnxWriter model;
    model.Input("x", DataType::kFp32, {"n"});
    model.Initializer("w", DataType::kFp32, {1}, "", location);
    model.Node("Add", {"x", "w"}, {"y"});
    model.Output("y", DataType::kFp32, {"n"});
    model.Write(options_.path);
    return Inspect();
  }

  void ExpectRefused(const Result<ModelFileFacts>& facts, StatusCode code,
                     const std::string& fragment) {
    ASSERT_FALSE(facts.ok());
    EXPECT_EQ(facts.status().code(), code);
    EXPECT_THAT(std::string(facts.status().message()),
                AllOf(HasSubstr("model 'm' version 1"), HasSubstr(fragment),
                      Not(HasSubstr(directory_.path()))));
  }

  TempDir directory_;
  LoadOptions options_;
};

TEST_F(ModelFileTest, ExternalDataBesideTheModel_IsCounted) {
  OnnxWriter::WriteFile(directory_.Path("repository/m/1/w.bin"), std::string(4000, 'w'));
  const auto facts = InspectWithWeightsAt("w.bin");
  ASSERT_TRUE(facts.ok()) << facts.status().ToString();
  EXPECT_EQ(facts->size_bytes, 4000 + fs::file_size(options_.path));
}

TEST_F(ModelFileTest, ExternalDataLinkedWithinTheModelsDirectory_IsAllowed) {
  OnnxWriter::WriteFile(directory_.Path("repository/m/w.bin"), "wwww");
  fs::create_symlink("../w.bin", directory_.Path("repository/m/1/w.bin"));
  const auto facts = InspectWithWeightsAt("w.bin");
  EXPECT_TRUE(facts.ok()) << facts.status().ToString();
}

TEST_F(ModelFileTest, AbsoluteExternalData_IsRefused) {
  ExpectRefused(InspectWithWeightsAt("/etc/passwd"), StatusCode::kInvalidArgument,
                "external data '/etc/passwd' is an absolute path");
}

TEST_F(ModelFileTest, ClimbingExternalData_IsRefused) {
  OnnxWriter::WriteFile(directory_.Path("repository/secret"), "wwww");
  ExpectRefused(InspectWithWeightsAt("../../secret"), StatusCode::kInvalidArgument,
                "leads out of the model's directory");
  ExpectRefused(InspectWithWeightsAt("a/../w.bin"), StatusCode::kInvalidArgument, "leads out");
}

TEST_F(ModelFileTest, ExternalDataLinkedOutOfTheModelsDirectory_IsRefused) {
  OnnxWriter::WriteFile(directory_.Path("secret"), "wwww");
  fs::create_symlink(directory_.Path("secret"), directory_.Path("repository/m/1/w.bin"));
  ExpectRefused(InspectWithWeightsAt("w.bin"), StatusCode::kInvalidArgument, "by a symbolic link");
}

TEST_F(ModelFileTest, ExternalDataInASiblingWithTheSamePrefix_IsRefused) {
  fs::create_directories(directory_.Path("repository/m_secret"));
  OnnxWriter::WriteFile(directory_.Path("repository/m_secret/w.bin"), "wwww");
  fs::create_symlink(directory_.Path("repository/m_secret"), directory_.Path("repository/m/1/sub"));
  ExpectRefused(InspectWithWeightsAt("sub/w.bin"), StatusCode::kInvalidArgument,
                "by a symbolic link");
}

TEST_F(ModelFileTest, MissingExternalData_IsNotFound) {
  ExpectRefused(InspectWithWeightsAt("w.bin"), StatusCode::kNotFound,
                "external data 'w.bin' cannot be opened");
}

TEST_F(ModelFileTest, ExternalDataThatIsADirectoryOrNamesAMemoryAddress_IsRefused) {
  fs::create_directories(directory_.Path("repository/m/1/sub"));
  ExpectRefused(InspectWithWeightsAt("sub"), StatusCode::kInvalidArgument, "is not a regular file");
  ExpectRefused(InspectWithWeightsAt("*/_ORT_MEM_ADDR_/*"), StatusCode::kNotFound,
                "cannot be opened");
  ExpectRefused(InspectWithWeightsAt(std::string("w.bin\0x", 7)), StatusCode::kInvalidArgument,
                "without a file name");
}

// Weights hide in attributes and in graphs inside nodes, too.
TEST_F(ModelFileTest, ExternalDataInNestedGraphs_IsFound) {
  OnnxWriter inner;
  inner.Initializer("w", DataType::kFp32, {1}, "", "/etc/passwd");
  const std::string bytes = inner.Serialize();
  protozero::pbf_reader inner_model(bytes);
  ASSERT_TRUE(inner_model.next(7));
  std::string attribute;
  protozero::pbf_writer writer(attribute);
  writer.add_string(1, "then_branch");
  writer.add_message(6, inner_model.get_string());
  OnnxWriter model;
  model.Node("If", {"c"}, {"y"}, {attribute});
  model.Write(options_.path);
  ExpectRefused(Inspect(), StatusCode::kInvalidArgument, "'/etc/passwd' is an absolute path");
}

TEST_F(ModelFileTest, GraphsNestedWithoutEnd_AreRefused) {
  std::string graph;
  for (int depth = 0; depth < 200; ++depth) {
    std::string attribute, node, outer;
    protozero::pbf_writer(attribute).add_message(6, graph);
    protozero::pbf_writer(node).add_message(5, attribute);
    protozero::pbf_writer(outer).add_message(1, node);
    graph = outer;
  }
  std::string model;
  protozero::pbf_writer(model).add_message(7, graph);
  OnnxWriter::WriteFile(options_.path, model);
  ExpectRefused(Inspect(), StatusCode::kInvalidArgument, "nests more than 64 graphs");
}

TEST_F(ModelFileTest, EveryTruncation_IsAnErrorOrAModelNeverACrash) {
  OnnxWriter model;
  model.Input("x", DataType::kFp32, {"n"});
  model.Initializer("w", DataType::kFp32, {1}, "wwww");
  model.Node("Add", {"x", "w"}, {"y"}, {OnnxWriter::Ints("axes", {1, 2})});
  model.Output("y", DataType::kFp32, {"n"});
  const std::string bytes = model.Serialize();
  int refused = 0;
  for (size_t size = 0; size < bytes.size(); ++size) {
    OnnxWriter::WriteFile(options_.path, bytes.substr(0, size));
    refused += !Inspect().ok();
  }
  EXPECT_GT(refused, static_cast<int>(bytes.size()) * 8 / 10);
}

TEST_F(ModelFileTest, WrongWireTypes_AreSkippedAsProtobufDoes) {
  std::string model;
  protozero::pbf_writer writer(model);
  writer.add_uint64(7, 5);  // a graph that is a number
  OnnxWriter::WriteFile(options_.path, model);
  ExpectRefused(Inspect(), StatusCode::kInvalidArgument, "it holds no graph");
}

TEST_F(ModelFileTest, MissingEmptyOrSpecialFile_IsRefused) {
  ExpectRefused(Inspect(), StatusCode::kNotFound,
                "file 'model.onnx' cannot be opened: No such file");
  OnnxWriter::WriteFile(options_.path, "");
  ExpectRefused(Inspect(), StatusCode::kInvalidArgument, "is empty");
  fs::remove(options_.path);
  fs::create_directory(options_.path);
  ExpectRefused(Inspect(), StatusCode::kInvalidArgument, "is not a regular file");
}

TEST_F(ModelFileTest, OrtFormat_IsRefusedByName) {
  OnnxWriter::WriteFile(options_.path, std::string("\x10\0\0\0ORTM and so on", 18));
  ExpectRefused(Inspect(), StatusCode::kInvalidArgument, "ONNX Runtime's own format");
}

TEST_F(ModelFileTest, Facts_TellHeavyOperatorsAndUnknownRanks) {
  OnnxWriter model;
  model.InputWithoutShape("x", DataType::kFp32);
  model.Output("y", DataType::kFp32, {"n", "m"});
  model.Node("Conv", {"x", "w"}, {"y"});
  model.Write(options_.path);
  const auto facts = Inspect();
  ASSERT_TRUE(facts.ok()) << facts.status().ToString();
  EXPECT_TRUE(facts->has_heavy_operator);
  EXPECT_EQ(facts->rank_unknown, std::set<std::string>{"x"});
}

TEST_F(ModelFileTest, WithoutPaths_CutsTheDirectoriesOut) {
  EXPECT_EQ(
      WithoutPaths("open file \"" + options_.path + "\" in " + options_.model_directory + " failed",
                   options_),
      "open file \"model.onnx\" in  failed");
}

}  // namespace
}  // namespace penstock::ort
