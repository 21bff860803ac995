// Requests that are refused, and what the refusal says.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <vector>

#include "protocol/infer_request.h"
#include "wire_builder.h"

namespace penstock {
namespace {

using testing::HasSubstr;

Status Parse(const std::string& message) {
  // A copy of exactly the message's size, so that AddressSanitizer sees any step beyond its end.
  const std::vector<uint8_t> bytes(message.begin(), message.end());
  HostPool pool;
  InferRequestView request;
  return ParseInferRequest(bytes, pool, &request);
}

void ExpectRefused(const Message& message, const std::string& text) {
  const Status status = Parse(message.data());
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(text));
}

// One valid request with everything in it.
Message FullRequest() {
  return Message()
      .String(1, "m")
      .String(2, "1")
      .String(3, "id")
      .Sub(4, ParameterEntry("k", Message().Double(4, 1)))
      .Sub(5, Input("a", "FP32", {1, 2}).Sub(5, Message().Float(6, 1).Float(6, 2)))
      .Sub(5, Input("b", "INT64", {300}).Sub(5, Message().Packed(3, std::vector<int64_t>(300))))
      .Sub(6, Message().String(1, "o").Sub(2, ParameterEntry("c", Message().Varint(2, 3))));
}

TEST(InferRequestFault, CutShortAnywhereNeverReadsBeyondTheEnd) {
  const std::string whole = FullRequest().data();
  ASSERT_TRUE(Parse(whole).ok());
  size_t refused = 0;
  for (size_t size = 0; size < whole.size(); ++size) {
    if (!Parse(whole.substr(0, size)).ok()) ++refused;
  }
  // A cut between two fields of the top level leaves a valid, shorter request.
  EXPECT_EQ(refused, whole.size() - 7);
}

TEST(InferRequestFault, AnyByteChangedIsAnsweredNotCrashed) {
  const std::string whole = FullRequest().data();
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const char byte : {'\x00', '\x01', '\x7F', '\x80', '\xFF'}) {
      std::string changed = whole;
      changed[at] = byte;
      const Status status = Parse(changed);
      EXPECT_TRUE(status.ok() || status.code() == StatusCode::kInvalidArgument);
    }
  }
}

TEST(InferRequestFault, TruncatedRequestNamesTheModel) {
  ExpectRefused(Request().Bytes("\x2A\x7F"),
                "inference request for model 'm': ModelInferRequest is malformed: "
                "a length runs past its end");
}

TEST(InferRequestFault, GarbageIsRefused) {
  ExpectRefused(Message().Bytes("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"), "malformed");
  ExpectRefused(Message().Bytes("not a protobuf at all"), "malformed");
}

TEST(InferRequestFault, ModelIsNamedThoughItsNameComesLast) {
  ExpectRefused(Message().Sub(5, Input("a", "FP31", {1})).String(1, "late"),
                "input 'a' for model 'late': unknown datatype 'FP31'");
}

TEST(InferRequestFault, WrongWireTypeIsNamed) {
  ExpectRefused(Message().Varint(1, 1), "model_name has wire type 0 instead of 2");
  ExpectRefused(Request().Varint(5, 1), "an input has wire type 0 instead of 2");
  ExpectRefused(Request().Varint(6, 1), "an output has wire type 0 instead of 2");
  ExpectRefused(Request().Varint(7, 1), "raw_input_contents has wire type 0 instead of 2");
  ExpectRefused(Request().Varint(4, 1), "a parameter has wire type 0 instead of 2");
  ExpectRefused(Request().Sub(5, Input("a", "FP32", {1}).Float(3, 1)),
                "input 'a' for model 'm': the shape has wire type 5 instead of 2");
  ExpectRefused(Request().Sub(5, Input("a", "FP32", {1}).Varint(5, 1)),
                "input 'a' for model 'm': contents has wire type 0 instead of 2");
  ExpectRefused(Request().Sub(4, ParameterEntry("k", Message().String(1, "?"))),
                "parameter 'k': bool_param has wire type 2 instead of 0");
}

TEST(InferRequestFault, TextThatIsNotUtf8IsRefusedAndNotEchoed) {
  ExpectRefused(Message().String(1, "\xFF"), "for model '': model_name is not valid UTF-8");
  ExpectRefused(Request().String(2, "\xFF"), "model_version is not valid UTF-8");
  ExpectRefused(Request().String(3, "\xFF"), "id is not valid UTF-8");
  ExpectRefused(Request().Sub(5, Input("\xFF", "FP32", {1})),
                "input '' for model 'm': the name is not valid UTF-8");
  ExpectRefused(Request().Sub(5, Input("a", "\xFF", {1})), "the datatype is not valid UTF-8");
  ExpectRefused(Request().Sub(6, Message().String(1, "\xFF")),
                "requested output '' for model 'm': the name is not valid UTF-8");
  ExpectRefused(Request().Sub(4, ParameterEntry("\xFF", Message().Varint(1, 1))),
                "the key of a parameter is not valid UTF-8");
  ExpectRefused(Request().Sub(4, ParameterEntry("k", Message().String(3, "\xFF"))),
                "parameter 'k': string_param is not valid UTF-8");
}

TEST(InferRequestFault, LongNameIsNotEchoedWhole) {
  const Status status =
      Parse(Message().String(1, std::string(1 << 20, 'x')).Sub(5, Input("a", "?", {1})).data());
  EXPECT_LT(status.message().size(), 400U);
}

TEST(InferRequestFault, MissingDatatypeIsRefused) {
  ExpectRefused(Request().Sub(5, Message().String(1, "a")),
                "input 'a' for model 'm': unknown datatype ''");
}

TEST(InferRequestFault, ParameterWithoutAValueIsRefused) {
  ExpectRefused(Request().Sub(4, Message().String(1, "k")), "parameter 'k' has no value");
  ExpectRefused(Request().Sub(4, ParameterEntry("k", Message())), "parameter 'k' has no value");
  ExpectRefused(Request().Sub(5, Input("a", "FP32", {1}).Sub(4, Message().String(1, "k"))),
                "input 'a' for model 'm': parameter 'k' has no value");
}

TEST(InferRequestFault, NegativeDimensionIsRefused) {
  ExpectRefused(Request().Sub(5, Input("a", "FP32", {2, -1})),
                "input 'a' for model 'm': the shape [2,-1] has a negative dimension");
  ExpectRefused(Request().Sub(5, Input("a", "FP32", {0, std::numeric_limits<int64_t>::min()})),
                "has a negative dimension");
}

TEST(InferRequestFault, ShapeBeyondSixtyFourBitsOfBytesIsRefused) {
  const int64_t max = std::numeric_limits<int64_t>::max();
  ExpectRefused(Request().Sub(5, Input("a", "UINT8", {max, 2})), "is too large");
  ExpectRefused(Request().Sub(5, Input("a", "FP32", {max})), "is too large");
  ExpectRefused(Request().Sub(5, Input("a", "BYTES", {max / 2})), "is too large");
  ExpectRefused(Request().Sub(5, Input("a", "UINT8", {int64_t{1} << 32, int64_t{1} << 32})),
                "the shape [4294967296,4294967296] is too large");
}

TEST(InferRequestFault, EmptyTensorOfHugeDimensionsIsRefused) {
  ExpectRefused(Request().Sub(5, Input("a", "FP32", {0, (1 << 20) + 1})),
                "the shape [0,1048577] is too large for no data");
  const int64_t max = std::numeric_limits<int64_t>::max();
  ExpectRefused(Request().Sub(5, Input("a", "FP32", {max, 0, max})), "is too large for no data");
}

TEST(InferRequestFault, TooManyDimensionsAreRefused) {
  EXPECT_TRUE(Parse(Request().Sub(5, Input("a", "FP32", std::vector<int64_t>(16, 1))).data()).ok());
  ExpectRefused(Request().Sub(5, Input("a", "FP32", std::vector<int64_t>(17, 1))),
                "the shape has 17 dimensions, at most 16 are allowed");
}

TEST(InferRequestFault, ShapeThatEndsInsideANumberIsRefused) {
  const Message input = Message().String(1, "a").String(2, "FP32").String(3, "\x01\x80");
  ExpectRefused(Request().Sub(5, input), "the shape is malformed: it ends inside a number");
}

TEST(InferRequestFault, RawAndTypedContentsMixedAreRefused) {
  ExpectRefused(Request()
                    .Sub(5, Input("a", "FP32", {1}))
                    .Sub(5, Input("b", "FP32", {1}).Sub(5, Message().Float(6, 1)))
                    .String(7, "1234")
                    .String(7, "1234"),
                "contents field must not be specified when using raw_input_contents for 'b' for "
                "model 'm'");
}

TEST(InferRequestFault, RawEntriesMustBeAsManyAsInputs) {
  ExpectRefused(
      Request().Sub(5, Input("a", "FP32", {1})).Sub(5, Input("b", "FP32", {1})).String(7, "1234"),
      "expected 2 entries in raw_input_contents for model 'm' but got 1");
  ExpectRefused(Request().String(7, "1234"),
                "expected 0 entries in raw_input_contents for model 'm' but got 1");
}

TEST(InferRequestFault, HugeCountsAreRefusedBeforeTheyTakeMemory) {
  std::string inputs;
  std::string outputs;
  std::string parameters;
  for (int i = 0; i < 4097; ++i) {
    inputs += Message().Sub(5, Message()).data();
    outputs += Message().Sub(6, Message()).data();
    parameters += Message().Sub(4, ParameterEntry("", Message().Varint(1, 0))).data();
  }
  ExpectRefused(Request().Bytes(inputs), "for model 'm': it has more than 4096 inputs");
  ExpectRefused(Request().Bytes(outputs), "for model 'm': it has more than 4096 outputs");
  ExpectRefused(Request().Bytes(parameters), "for model 'm': it has more than 4096 parameters");
}

}  // namespace
}  // namespace penstock
