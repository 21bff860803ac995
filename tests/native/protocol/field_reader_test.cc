#include "protocol/field_reader.h"

#include <gtest/gtest.h>

#include <string>

#include "wire_builder.h"

namespace penstock {
namespace {

// What reading all of `message` ends with; "" for a good end.
std::string ErrorOf(const std::string& message) {
  FieldReader reader(AsBytes(message));
  Field field;
  while (reader.Next(&field)) {
  }
  return reader.error() == nullptr ? "" : reader.error();
}

TEST(FieldReader, EmptyMessageHasNoFieldAndNoError) { EXPECT_EQ(ErrorOf(""), ""); }

TEST(FieldReader, FieldsOfEveryWireTypeAreRead) {
  const std::string message =
      Message().Varint(1, UINT64_MAX).Double(2, 0.5).String(3, "abc").Float(4, 2.0F).data();
  FieldReader reader(AsBytes(message));
  Field field;

  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(field.number, 1U);
  EXPECT_EQ(field.type, WireType::varint);
  EXPECT_EQ(field.value, UINT64_MAX);
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(field.type, WireType::fixed64);
  EXPECT_EQ(AsText(field.bytes), Raw({0.5}));
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(field.type, WireType::length_delimited);
  EXPECT_EQ(field.text(), "abc");
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(field.type, WireType::fixed32);
  EXPECT_EQ(AsText(field.bytes), Raw({2.0F}));
  EXPECT_FALSE(reader.Next(&field));
  EXPECT_EQ(reader.error(), nullptr);
}

TEST(FieldReader, TruncatedMessageIsAnErrorAtEveryByte) {
  const std::string cases[] = {Message().Varint(1, UINT64_MAX).data(),
                               Message().Double(2, 0.5).data(), Message().Float(4, 0.5F).data(),
                               Message().String(3, std::string(200, 'a')).data()};
  for (const std::string& message : cases) {
    for (size_t size = 1; size < message.size(); ++size) {
      EXPECT_NE(ErrorOf(message.substr(0, size)), "") << size;
    }
  }
}

TEST(FieldReader, LengthPastTheEndIsAnError) {
  EXPECT_EQ(ErrorOf("\x0A\x05"
                    "abcd"),
            "a length runs past its end");
}

TEST(FieldReader, LengthIsNotCutToThirtyTwoBits) {
  // 2^32 + 1, followed by the one byte that the cut length would ask for.
  EXPECT_EQ(ErrorOf("\x0A\x81\x80\x80\x80\x10"
                    "a"),
            "a length runs past its end");
}

TEST(FieldReader, NumberLongerThanSixtyFourBitsIsAnError) {
  const std::string nine(9, '\xFF');
  EXPECT_EQ(ErrorOf("\x08" + nine + "\x01"), "");
  EXPECT_EQ(ErrorOf("\x08" + nine + "\x02"), "a number is longer than 64 bits");
  EXPECT_EQ(ErrorOf("\x08" + nine + "\xFF\x01"), "a number is longer than 64 bits");
}

TEST(FieldReader, FieldNumberOutOfRangeIsAnError) {
  EXPECT_EQ(ErrorOf(std::string("\x00\x01", 2)), "a field number is out of range");
  // Key 2^32 + 8: field number 1 if it were cut to 32 bits.
  EXPECT_EQ(ErrorOf("\x88\x80\x80\x80\x10\x01"), "a field number is out of range");
}

TEST(FieldReader, GroupsAndUnknownWireTypesAreErrors) {
  for (const char key : {'\x0B', '\x0C', '\x0E', '\x0F'}) {
    EXPECT_EQ(ErrorOf(std::string(1, key) + "\x01"), "a field has an unknown wire type");
  }
}

TEST(FieldReader, NothingIsReadAfterAnError) {
  const std::string message = std::string("\x0B") + Message().Varint(1, 1).data();
  FieldReader reader(AsBytes(message));
  Field field;
  EXPECT_FALSE(reader.Next(&field));
  EXPECT_FALSE(reader.Next(&field));
  EXPECT_NE(reader.error(), nullptr);
}

}  // namespace
}  // namespace penstock
