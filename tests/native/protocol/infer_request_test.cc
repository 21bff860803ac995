// The structure of a request: names, shapes, parameters, raw contents. Typed contents:
// typed_contents_test.

#include "protocol/infer_request.h"

#include <gtest/gtest.h>

#include <string>

#include "wire_builder.h"

namespace penstock {
namespace {

class InferRequestTest : public testing::Test {
 protected:
  Status Parse(const Message& message) {
    message_ = message.data();
    return ParseInferRequest(AsBytes(message_), pool_, &request_);
  }

  std::string message_;
  HostPool pool_;
  InferRequestView request_;
};

TEST_F(InferRequestTest, EmptyMessageIsARequestWithoutAnything) {
  ASSERT_TRUE(Parse(Message()).ok());
  EXPECT_EQ(request_.model_name, "");
  EXPECT_TRUE(request_.inputs.empty());
  EXPECT_TRUE(request_.outputs.empty());
}

TEST(PeekRequestIdTest, IsFoundWhereWritersPutItAndNowhereElse) {
  const auto peek = [](const Message& message) {
    const std::string data = message.data();
    return std::string(PeekRequestId(AsBytes(data)));
  };
  EXPECT_EQ(peek(Message().String(1, "digits").String(2, "3").String(3, "id-7")), "id-7");
  EXPECT_EQ(peek(Message().String(1, "digits").String(3, "id-7")), "id-7");
  EXPECT_EQ(peek(Message().String(1, "digits")), "");
  EXPECT_EQ(peek(Message().String(3, "\xff")), "");
  Message late;
  for (int i = 0; i < 3; ++i) late.String(1, "digits");
  EXPECT_EQ(peek(late.String(3, "id-7")), "");
}

TEST_F(InferRequestTest, NamesVersionIdAndOutputsAreRead) {
  ASSERT_TRUE(Parse(Message()
                        .String(1, "digits")
                        .String(2, "3")
                        .String(3, "id-7")
                        .Sub(6, Message().String(1, "label"))
                        .Sub(6, Message().String(1, "scores")))
                  .ok());
  EXPECT_EQ(request_.model_name, "digits");
  EXPECT_EQ(request_.model_version, "3");
  EXPECT_EQ(request_.id, "id-7");
  ASSERT_EQ(request_.outputs.size(), 2U);
  EXPECT_EQ(request_.outputs[0].name, "label");
  EXPECT_EQ(request_.outputs[1].name, "scores");
}

TEST_F(InferRequestTest, RawContentsAreViewsOnTheMessage) {
  ASSERT_TRUE(Parse(Request()
                        .Sub(5, Input("a", "FP32", {1, 2}))
                        .Sub(5, Input("b", "BF16", {1}))
                        .String(7, Raw({1.0F, 2.0F}))
                        .String(7, "xy"))
                  .ok());
  ASSERT_EQ(request_.inputs.size(), 2U);
  const TensorView& a = request_.inputs[0].tensor;
  EXPECT_EQ(a.name, "a");
  EXPECT_EQ(a.dtype, DataType::kFp32);
  EXPECT_EQ(a.shape, (Shape{1, 2}));
  EXPECT_EQ(AsText(a.data), Raw({1.0F, 2.0F}));
  EXPECT_EQ(request_.inputs[1].tensor.dtype, DataType::kBf16);
  EXPECT_EQ(AsText(request_.inputs[1].tensor.data), "xy");
  EXPECT_GE(reinterpret_cast<const char*>(a.data.data()), message_.data());
  EXPECT_LT(reinterpret_cast<const char*>(a.data.data()), message_.data() + message_.size());
  EXPECT_TRUE(request_.decoded.empty());
}

TEST_F(InferRequestTest, FieldsInAnyOrderGiveTheSameRequest) {
  ASSERT_TRUE(
      Parse(Message()
                .String(7, "1234")
                .Sub(5, Input("a", "INT32", {1}))
                .Sub(4, ParameterEntry("priority", Message().Varint(5, 2)))
                .String(7, "56")
                .Sub(5,
                     Input("b", "INT16", {1}).Sub(4, ParameterEntry("own", Message().Varint(1, 1))))
                .Sub(4, ParameterEntry("timeout", Message().Varint(2, 9)))
                .String(1, "m"))
          .ok());
  EXPECT_EQ(request_.model_name, "m");
  EXPECT_EQ(AsText(request_.inputs[0].tensor.data), "1234");
  EXPECT_EQ(AsText(request_.inputs[1].tensor.data), "56");
  const auto parameters = request_.ParametersOf(request_.request_parameters);
  ASSERT_EQ(parameters.size(), 2U);
  EXPECT_EQ(parameters[0].key, "priority");
  EXPECT_EQ(parameters[1].key, "timeout");
  const auto own = request_.ParametersOf(request_.inputs[1].parameters);
  ASSERT_EQ(own.size(), 1U);
  EXPECT_EQ(own[0].key, "own");
  EXPECT_EQ(request_.inputs[0].parameters.count, 0U);
}

TEST_F(InferRequestTest, ParameterOfEveryTypeIsRead) {
  ASSERT_TRUE(Parse(Request()
                        .Sub(4, ParameterEntry("bool", Message().Varint(1, 1)))
                        .Sub(4, ParameterEntry("int64", Message().Varint(2, UINT64_MAX)))
                        .Sub(4, ParameterEntry("string", Message().String(3, "text")))
                        .Sub(4, ParameterEntry("double", Message().Double(4, 0.25)))
                        .Sub(4, ParameterEntry("uint64", Message().Varint(5, UINT64_MAX))))
                  .ok());
  const auto parameters = request_.ParametersOf(request_.request_parameters);
  ASSERT_EQ(parameters.size(), 5U);
  EXPECT_EQ(std::get<bool>(parameters[0].value), true);
  EXPECT_EQ(std::get<int64_t>(parameters[1].value), -1);
  EXPECT_EQ(std::get<std::string_view>(parameters[2].value), "text");
  EXPECT_EQ(std::get<double>(parameters[3].value), 0.25);
  EXPECT_EQ(std::get<uint64_t>(parameters[4].value), UINT64_MAX);
}

TEST_F(InferRequestTest, OutputParametersBelongToTheirOutput) {
  ASSERT_TRUE(Parse(Request()
                        .Sub(6, Message().String(1, "a"))
                        .Sub(6, Message().String(1, "b").Sub(
                                    2, ParameterEntry("classification", Message().Varint(2, 3)))))
                  .ok());
  EXPECT_EQ(request_.ParametersOf(request_.outputs[0].parameters).size(), 0U);
  const auto own = request_.ParametersOf(request_.outputs[1].parameters);
  ASSERT_EQ(own.size(), 1U);
  EXPECT_EQ(std::get<int64_t>(own[0].value), 3);
}

TEST_F(InferRequestTest, ScalarThatComesTwiceKeepsItsLastValue) {
  ASSERT_TRUE(Parse(Message()
                        .String(1, "first")
                        .String(1, "last")
                        .Sub(4, ParameterEntry("p", Message().Varint(2, 1).String(3, "last"))))
                  .ok());
  EXPECT_EQ(request_.model_name, "last");
  EXPECT_EQ(std::get<std::string_view>(request_.parameters[0].value), "last");
}

TEST_F(InferRequestTest, ShapeIsReadPackedUnpackedAndMixed) {
  const Message input =
      Message().String(1, "a").String(2, "FP16").Varint(3, 2).Packed(3, {3, 0}).Varint(3, 5);
  ASSERT_TRUE(Parse(Request().Sub(5, input).String(7, "")).ok());
  EXPECT_EQ(request_.inputs[0].tensor.shape, (Shape{2, 3, 0, 5}));
}

TEST_F(InferRequestTest, ScalarInputHasRankZero) {
  ASSERT_TRUE(Parse(Request().Sub(5, Input("a", "UINT8", {})).String(7, "z")).ok());
  EXPECT_TRUE(request_.inputs[0].tensor.shape.empty());
}

TEST_F(InferRequestTest, InputInSharedMemoryTakesNoRawEntry) {
  const Message shared =
      Input("a", "FP32", {1})
          .Sub(4, ParameterEntry("shared_memory_region", Message().String(3, "r")));
  ASSERT_TRUE(Parse(Request().Sub(5, shared).Sub(5, Input("b", "UINT8", {1})).String(7, "z")).ok());
  EXPECT_TRUE(request_.inputs[0].tensor.data.empty());
  EXPECT_EQ(AsText(request_.inputs[1].tensor.data), "z");
}

TEST_F(InferRequestTest, UnknownFieldsAreSkippedAtEveryLevel) {
  const std::string unknown =
      Message().Varint(100, 1).Double(101, 1).String(102, "?").Float(103, 1).data();
  const Message value = Message().Bytes(unknown).Varint(1, 1);
  const Message entry = Message().Bytes(unknown).String(1, "k").Sub(2, value);
  ASSERT_TRUE(Parse(Request()
                        .Bytes(unknown)
                        .Sub(4, entry)
                        .Sub(5, Input("a", "UINT8", {1}).Bytes(unknown))
                        .Sub(6, Message().Bytes(unknown).String(1, "o"))
                        .String(7, "z"))
                  .ok());
  EXPECT_EQ(request_.parameters.size(), 1U);
  EXPECT_EQ(request_.outputs[0].name, "o");
}

TEST_F(InferRequestTest, ViewIsReusedWithoutLeavings) {
  ASSERT_TRUE(Parse(Request()
                        .String(3, "id")
                        .Sub(4, ParameterEntry("k", Message().Varint(1, 1)))
                        .Sub(5, Input("a", "UINT8", {1}))
                        .Sub(6, Message().String(1, "o"))
                        .String(7, "z"))
                  .ok());
  ASSERT_TRUE(Parse(Request()).ok());
  EXPECT_EQ(request_.id, "");
  EXPECT_TRUE(request_.inputs.empty());
  EXPECT_TRUE(request_.outputs.empty());
  EXPECT_EQ(request_.ParametersOf(request_.request_parameters).size(), 0U);
}

}  // namespace
}  // namespace penstock
