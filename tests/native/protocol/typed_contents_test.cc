// Typed contents of every datatype, through ParseInferRequest.

#include "protocol/typed_contents.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "protocol/infer_request.h"
#include "wire_builder.h"

namespace penstock {
namespace {

using testing::HasSubstr;

struct Case {
  const char* datatype;
  int64_t num_elements;
  Message contents;
  std::string expected;  // memory layout
  bool is_in_place = false;
};

std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.datatype; }

class TypedContentsTest : public testing::TestWithParam<Case> {
 protected:
  Status Parse(const Message& request) {
    bytes_.assign(request.data().begin(), request.data().end());
    return ParseInferRequest(bytes_, pool_, &request_);
  }
  Status ParseInput(const char* datatype, int64_t num_elements, const Message& contents) {
    return Parse(Request().Sub(5, Input("a", datatype, {num_elements}).Sub(5, contents)));
  }
  void ExpectRefused(const Status& status, const std::string& text) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(text));
  }

  std::vector<uint8_t> bytes_;  // of exactly the message's size, for AddressSanitizer
  HostPool pool_;
  InferRequestView request_;
};

TEST_P(TypedContentsTest, ContentsBecomeMemoryLayout) {
  const Case& c = GetParam();
  const Status status = ParseInput(c.datatype, c.num_elements, c.contents);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(AsText(request_.inputs[0].tensor.data), c.expected);
  EXPECT_EQ(request_.decoded.empty(), c.is_in_place);
}

std::vector<Case> Cases() {
  const Message floats = Message().Float(6, 1.5F).Float(6, -2);
  const Message packed_floats = Message().String(6, Raw({1.5F, -2.0F}));
  const Message packed_doubles = Message().String(7, Raw({1.5, -2.0}));
  return {
      {"BOOL", 4, Message().Packed(1, {1, 0, 7}).Varint(1, 1), std::string("\1\0\1\1", 4)},
      {"INT8", 3, Message().Packed(2, {-128, 127, -1}), Raw<int8_t>({-128, 127, -1})},
      {"INT16", 2, Message().Packed(2, {-32768, 32767}), Raw<int16_t>({-32768, 32767})},
      {"INT32", 2, Message().Packed(2, {INT32_MIN, INT32_MAX}),
       Raw<int32_t>({INT32_MIN, INT32_MAX})},
      {"INT64", 2, Message().Packed(3, {INT64_MIN, INT64_MAX}),
       Raw<int64_t>({INT64_MIN, INT64_MAX})},
      {"UINT8", 2, Message().Packed(4, {0, 255}), Raw<uint8_t>({0, 255})},
      {"UINT16", 2, Message().Packed(4, {0, 65535}), Raw<uint16_t>({0, 65535})},
      {"UINT32", 2, Message().Packed(4, {0, UINT32_MAX}), Raw<uint32_t>({0, UINT32_MAX})},
      {"UINT64", 2, Message().Packed(5, {0, -1}), Raw<uint64_t>({0, UINT64_MAX})},
      {"FP32", 2, packed_floats, Raw({1.5F, -2.0F}), true},
      {"FP32", 2, floats, Raw({1.5F, -2.0F})},
      {"FP32", 4, Message(floats).String(6, Raw({3.0F, 4.0F})), Raw({1.5F, -2.0F, 3.0F, 4.0F})},
      {"FP64", 2, packed_doubles, Raw({1.5, -2.0}), true},
      {"FP64", 3, Message(packed_doubles).Double(7, 9), Raw({1.5, -2.0, 9.0})},
      {"BYTES", 3, Message().String(8, "ab").String(8, "").String(8, std::string("\0x", 2)),
       std::string("\2\0\0\0ab\0\0\0\0\2\0\0\0\0x", 16)},
      // In two runs, and one by one.
      {"INT32", 4, Message().Packed(2, {1, -1}).Varint(2, 300).Packed(2, {4}),
       Raw<int32_t>({1, -1, 300, 4})},
      // An int32 written without sign extension, as some encoders do.
      {"INT32", 1, Message().Varint(2, UINT32_MAX), Raw<int32_t>({-1})},
      // Zero elements.
      {"FP32", 0, Message(), ""},
      {"INT64", 0, Message().String(3, ""), ""},
      {"BYTES", 0, Message(), ""},
      // Empty runs of other types say nothing.
      {"UINT8", 1, Message().String(1, "").Varint(4, 9).String(7, ""), Raw<uint8_t>({9})},
  };
}

std::string CaseName(const testing::TestParamInfo<Case>& info) {
  return std::string(info.param.datatype) + "_" + std::to_string(info.index);
}

// An input of zero elements takes no memory, so nothing is in place and nothing is decoded: the
// buffer kept for it is empty.
INSTANTIATE_TEST_SUITE_P(EveryDatatype, TypedContentsTest, testing::ValuesIn(Cases()), CaseName);

TEST_F(TypedContentsTest, ContentsThatComeTwiceAreConcatenated) {
  const Message input =
      Input("a", "INT32", {3}).Sub(5, Message().Packed(2, {1, 2})).Sub(5, Message().Varint(2, 3));
  ASSERT_TRUE(Parse(Request().Sub(5, input)).ok());
  EXPECT_EQ(AsText(request_.inputs[0].tensor.data), Raw<int32_t>({1, 2, 3}));
}

TEST_F(TypedContentsTest, DatatypeMayComeAfterContents) {
  const Message input =
      Message().Sub(5, Message().Packed(4, {7})).String(1, "a").String(2, "UINT8").Varint(3, 1);
  ASSERT_TRUE(Parse(Request().Sub(5, input)).ok());
  EXPECT_EQ(AsText(request_.inputs[0].tensor.data), Raw<uint8_t>({7}));
}

TEST_F(TypedContentsTest, EachInputGetsItsOwnContents) {
  ASSERT_TRUE(Parse(Request()
                        .Sub(5, Input("a", "INT8", {1}).Sub(5, Message().Varint(2, 1)))
                        .Sub(5, Input("none", "INT8", {1}))
                        .Sub(5, Input("b", "INT16", {1}).Sub(5, Message().Varint(2, 2))))
                  .ok());
  EXPECT_EQ(AsText(request_.inputs[0].tensor.data), Raw<int8_t>({1}));
  EXPECT_TRUE(request_.inputs[1].tensor.data.empty());
  EXPECT_EQ(AsText(request_.inputs[2].tensor.data), Raw<int16_t>({2}));
}

TEST_F(TypedContentsTest, FieldOfAnotherDatatypeIsRefused) {
  ExpectRefused(ParseInput("INT32", 1, Message().Float(6, 1)),
                "input 'a' for model 'm': unexpected data in fp32_contents");
  ExpectRefused(ParseInput("FP32", 1, Message().Float(6, 1).String(8, "")),
                "unexpected data in bytes_contents");
}

TEST_F(TypedContentsTest, HalfPrecisionHasNoTypedContents) {
  for (const char* datatype : {"FP16", "BF16"}) {
    ExpectRefused(ParseInput(datatype, 1, Message().Float(6, 1)),
                  std::string("input 'a' for model 'm': ") + datatype +
                      " has no typed contents and must be sent in raw_input_contents");
  }
}

TEST_F(TypedContentsTest, ValueBeyondItsTypeIsRefused) {
  const std::pair<const char*, Message> cases[] = {
      {"INT8", Message().Packed(2, {128})},   {"INT8", Message().Packed(2, {-129})},
      {"INT16", Message().Varint(2, 32768)},  {"UINT8", Message().Packed(4, {256})},
      {"UINT16", Message().Varint(4, 65536)},
  };
  for (const auto& [datatype, contents] : cases) {
    ExpectRefused(ParseInput(datatype, 1, contents),
                  std::string("is out of range for ") + datatype);
  }
}

TEST_F(TypedContentsTest, NumberOfElementsMustBeTheShapes) {
  ExpectRefused(ParseInput("FP32", 16, Message().String(6, std::string(60, '\0'))),
                "input byte size mismatch for input 'a' for model 'm'. Expected 64, got 60");
  ExpectRefused(ParseInput("INT64", 1, Message().Packed(3, {1, 2})), "Expected 8, got 16");
  ExpectRefused(ParseInput("BYTES", 2, Message().String(8, "x")),
                "expected 2 string elements for inference input 'a' for model 'm', got 1");
}

TEST_F(TypedContentsTest, LyingShapeTakesNoMemory) {
  ExpectRefused(ParseInput("INT8", int64_t{1} << 60, Message().Varint(2, 1)),
                "Expected 1152921504606846976, got 1");
  EXPECT_EQ(pool_.idle_bytes(), 0U);
}

TEST_F(TypedContentsTest, RunThatEndsInsideAnElementIsRefused) {
  ExpectRefused(ParseInput("FP32", 1, Message().String(6, "12345")),
                "malformed contents: a packed run ends inside an element");
  ExpectRefused(ParseInput("FP64", 1, Message().String(7, "12345")),
                "malformed contents: a packed run ends inside an element");
  ExpectRefused(ParseInput("INT64", 1, Message().String(3, "\x01\x80")),
                "malformed contents: it ends inside a number");
}

TEST_F(TypedContentsTest, NumberLongerThanSixtyFourBitsIsRefused) {
  ExpectRefused(ParseInput("INT64", 1, Message().String(3, std::string(10, '\xFF') + "\x01")),
                "malformed contents: a number is longer than 64 bits");
}

TEST_F(TypedContentsTest, WrongWireTypeIsRefused) {
  ExpectRefused(ParseInput("FP32", 1, Message().Varint(6, 1)), "wrong wire type");
  ExpectRefused(ParseInput("FP32", 1, Message().Double(6, 1)), "wrong wire type");
  ExpectRefused(ParseInput("INT32", 1, Message().Float(2, 1)), "wrong wire type");
  ExpectRefused(ParseInput("BYTES", 1, Message().Varint(8, 1)), "wrong wire type");
}

TEST_F(TypedContentsTest, ContentsCutShortAreRefused) {
  ExpectRefused(ParseInput("FP32", 1,
                           Message().Bytes("\x32\x04"
                                           "ab")),
                "input 'a' for model 'm': malformed contents: a length runs past its end");
}

}  // namespace
}  // namespace penstock
