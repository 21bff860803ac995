// Every refusal of BindRequest and its text: what public clients and their tests look for.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "engine/bind_request.h"
#include "engine_harness.h"

namespace penstock {
namespace {

using testing::HasSubstr;

// "M": A FP32 [2], B BYTES [1] -> OUT FP32 [2], TEXT BYTES [1]; up to 4 rows.
VersionSpec Spec() {
  VersionSpec spec;
  spec.model_name = "M";
  spec.version = 1;
  spec.max_batch_size = 4;
  spec.inputs = {{.name = "A", .dtype = DataType::kFp32, .dims = {2}, .reshape = {}},
                 {.name = "B", .dtype = DataType::kBytes, .dims = {1}, .reshape = {}}};
  spec.outputs = {
      {.name = "OUT", .dtype = DataType::kFp32, .dims = {2}, .reshape = {}, .labels = {}},
      {.name = "TEXT", .dtype = DataType::kBytes, .dims = {1}, .reshape = {}, .labels = {}}};
  return spec;
}

const std::string kRow = RawOf<float>({1, 2});
const std::string kText = RawBytes({"t"});

InferMessage Good() {
  return InferMessage("M").Input("A", "FP32", {1, 2}, kRow).Input("B", "BYTES", {1, 1}, kText);
}
InferMessage WithA(const std::string& datatype, const std::vector<int64_t>& shape,
                   const std::string& raw) {
  return InferMessage("M").Input("B", "BYTES", {1, 1}, kText).Input("A", datatype, shape, raw);
}
InferMessage WithB(const std::string& raw) {
  return InferMessage("M").Input("A", "FP32", {1, 2}, kRow).Input("B", "BYTES", {1, 1}, raw);
}

Status Bind(const VersionSpec& spec, const InferMessage& message) {
  const std::string bytes = message.bytes();
  const RequestRef ref = InferRequestPool::Shared().Get();
  InferRequest& request = AsInfer(ref);
  const Status parsed = ParseInferRequest(SpanOf(bytes), HostPool::Shared(), &request.view);
  return parsed.ok() ? BindRequest(spec, SharedMemory({}), &request) : parsed;
}

struct Case {
  std::string name;
  InferMessage message;
  std::string text;
  StatusCode code = StatusCode::kInvalidArgument;
};
void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

std::vector<Case> InputCases() {
  return {
      {"missing_input", InferMessage("M").Input("A", "FP32", {1, 2}, kRow),
       "expected 2 inputs but got 1 inputs for model 'M'. Got input(s) ['A'], but missing required "
       "input(s) ['B']. Please provide all required input(s)."},
      {"no_input", InferMessage("M"), "expected 2 inputs but got 0 inputs for model 'M'"},
      {"unknown_input", Good().Input("C", "FP32", {1, 2}, kRow),
       "unexpected inference input 'C' for model 'M'"},
      {"duplicate_input", Good().Input("A", "FP32", {1, 2}, kRow),
       "input 'A' already exists in request for model 'M'"},
      {"wrong_datatype", WithA("INT32", {1, 2}, kRow),
       "inference input 'A' data-type is 'INT32', but model 'M' expects 'FP32'"},
      {"wrong_shape", WithA("FP32", {1, 3}, RawOf<float>({1, 2, 3})),
       "unexpected shape for input 'A' for model 'M'. Expected [-1,2], got [1,3]"},
      {"wrong_rank", WithA("FP32", {1, 2, 1}, kRow),
       "unexpected shape for input 'A' for model 'M'. Expected [-1,2], got [1,2,1]"},
      {"no_shape", WithA("FP32", {}, RawOf<float>({1})),
       "input 'A' has no shape but model requires batch dimension for 'M'"},
      {"over_max_batch_size",
       InferMessage("M")
           .Input("A", "FP32", {5, 2}, RawOf(std::vector<float>(10)))
           .Input("B", "BYTES", {5, 1}, RawBytes({"", "", "", "", ""})),
       "inference request batch-size must be <= 4 for 'M'"},
      {"zero_rows",
       InferMessage("M").Input("A", "FP32", {0, 2}, "").Input("B", "BYTES", {0, 1}, ""),
       "inference request batch-size must be >= 1 for 'M', got 0"},
      {"unequal_rows", WithA("FP32", {2, 2}, RawOf<float>({1, 2, 3, 4})),
       "batch size does not match other inputs for 'M'"},
      {"too_few_bytes", WithA("FP32", {1, 2}, kRow.substr(1)),
       "input byte size mismatch for input 'A' for model 'M'. Expected 8, got 7"},
      {"too_many_bytes", WithA("FP32", {1, 2}, kRow + "x"),
       "input byte size mismatch for input 'A' for model 'M'. Expected 8, got 9"},
      {"text_without_elements", WithB(""),
       "expected 1 string elements for inference input 'B' for model 'M', got 0"},
      {"text_with_a_cut_length", WithB("\x01\0\0"),
       "incomplete string length indicator for inference input 'B' for model 'M', expecting 4"},
      {"text_that_lies", WithB(RawOf<uint32_t>({0xffffffff}) + "abc"),
       "incomplete string data for inference input 'B' for model 'M', expecting string of length "
       "4294967295 but only 3 bytes available"},
      {"text_with_more", WithB(kText + kText),
       "unexpected number of string elements for inference input 'B' for model 'M'"},
      {"shared_memory_input",
       InferMessage("M")
           .Input("A", "FP32", {1, 2}, kRow)
           .Input("B", "BYTES", {1, 1}, "", "shared_memory_region"),
       "Client shared memory is disabled", StatusCode::kUnimplemented},
  };
}

std::vector<Case> OtherCases() {
  return {
      {"unknown_output", Good().Output("NONE"), "unexpected inference output 'NONE' for model 'M'"},
      {"duplicate_output", Good().Output("OUT").Output("OUT"),
       "output 'OUT' already exists in request for model 'M'"},
      {"classes_of_text", Good().Output("TEXT", {1}),
       "class result not available for output 'TEXT' of model 'M' due to unsupported type 'BYTES'"},
      {"no_classes", Good().Output("OUT", {0}), "'classification' of output 'OUT': expected > 0"},
      {"negative_classes", Good().Output("OUT", {-1}), "invalid value for parameter"},
      {"reserved_parameter", Good().Parameter("triton_x", 1, 1),
       "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following "
       "keys starting with 'triton_' are allowed: triton_enable_empty_final_response"},
      {"negative_priority", Good().Parameter("priority", 2, static_cast<uint64_t>(-1)),
       "invalid value for parameter 'priority'"},
      {"boolean_timeout", Good().Parameter("timeout", 1, 1),
       "invalid value for parameter 'timeout'"},
      {"timeout_out_of_range", Good().Parameter("timeout", 5, UINT64_MAX),
       "invalid value for parameter 'timeout'"},
  };
}

class BindRefusalTest : public testing::TestWithParam<Case> {};

TEST_P(BindRefusalTest, SaysWhatIsWrong) {
  const Status status = Bind(Spec(), GetParam().message);
  EXPECT_EQ(status.code(), GetParam().code);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().text));
}

const auto kNameOf = [](const auto& info) { return info.param.name; };
INSTANTIATE_TEST_SUITE_P(Inputs, BindRefusalTest, testing::ValuesIn(InputCases()), kNameOf);
INSTANTIATE_TEST_SUITE_P(Others, BindRefusalTest, testing::ValuesIn(OtherCases()), kNameOf);

TEST(BindRefusalTextTest, GoodRequest_IsNotRefused) {
  EXPECT_TRUE(Bind(Spec(), Good()).ok());
  EXPECT_TRUE(Bind(Spec(), Good().Parameter("triton_enable_empty_final_response", 1, 1)).ok());
}

TEST(BindRefusalTextTest, BoolThatIsNeitherZeroNorOne_IsRefused) {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0].dtype = DataType::kBool;
  const auto bind = [&](std::string_view raw) {
    const std::string bytes = InferMessage().Input("IN", "BOOL", {1, 2}, raw).bytes();
    const RequestRef ref = InferRequestPool::Shared().Get();
    InferRequest& request = AsInfer(ref);
    EXPECT_TRUE(ParseInferRequest(SpanOf(bytes), HostPool::Shared(), &request.view).ok());
    return BindRequest(spec, SharedMemory({}), &request);
  };
  EXPECT_TRUE(bind({"\1\0", 2}).ok());
  const Status status = bind({"\1\xff", 2});
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "input 'IN' for model 'm' has a BOOL element that is neither 0 nor 1");
}

TEST(BindRefusalTextTest, MissingInputOfSeveralOptionalOnes_NamesTheRange) {
  VersionSpec spec = Spec();
  spec.inputs.push_back(
      {.name = "C", .dtype = DataType::kFp32, .dims = {2}, .reshape = {}, .is_optional = true});
  EXPECT_THAT(std::string(Bind(spec, InferMessage("M")).message()),
              HasSubstr("expected number of inputs between 2 and 3 but got 0"));
}

TEST(BindRefusalTextTest, HugeName_IsNotSentBack) {
  const Status status = Bind(Spec(), Good().Input(std::string(100'000, 'x'), "FP32", {1, 2}, kRow));
  EXPECT_LT(status.message().size(), 1000U);
}

TEST(ParseModelVersionTest, EmptyIsByPolicyAndNumbersAreThemselves) {
  EXPECT_EQ(*ParseModelVersion(""), std::nullopt);
  EXPECT_EQ(*ParseModelVersion("3"), 3);
  EXPECT_EQ(*ParseModelVersion("9223372036854775807"), INT64_MAX);
}

TEST(ParseModelVersionTest, AnythingElse_IsInvalid) {
  for (const char* text : {"x", "1x", "-1", "1.0", " 1", "9223372036854775808"}) {
    const auto version = ParseModelVersion(text);
    ASSERT_FALSE(version.ok()) << text;
    EXPECT_EQ(version.status().code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(version.status().message()),
                HasSubstr(std::string("failed to get model version from specified version string "
                                      "'") +
                          text + "'"));
  }
}

}  // namespace
}  // namespace penstock
