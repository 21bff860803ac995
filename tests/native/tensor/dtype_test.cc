#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace penstock {
namespace {

TEST(DataTypeTest, EveryType_HasItsProtocolNameAndSize) {
  struct Case {
    DataType dtype;
    std::string name;
    size_t size_bytes;
  };
  const std::vector<Case> cases = {
      {DataType::kBool, "BOOL", 1},     {DataType::kUint8, "UINT8", 1},
      {DataType::kUint16, "UINT16", 2}, {DataType::kUint32, "UINT32", 4},
      {DataType::kUint64, "UINT64", 8}, {DataType::kInt8, "INT8", 1},
      {DataType::kInt16, "INT16", 2},   {DataType::kInt32, "INT32", 4},
      {DataType::kInt64, "INT64", 8},   {DataType::kFp16, "FP16", 2},
      {DataType::kBf16, "BF16", 2},     {DataType::kFp32, "FP32", 4},
      {DataType::kFp64, "FP64", 8},     {DataType::kBytes, "BYTES", 0},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(DataTypeName(c.dtype), c.name);
    EXPECT_EQ(ParseDataType(c.name), c.dtype);
    EXPECT_EQ(DataTypeSize(c.dtype), c.size_bytes) << c.name;
  }
}

TEST(DataTypeTest, OtherNames_AreInvalid) {
  for (const char* name : {"", "INVALID", "fp32", "FP32 ", "FP8", "STRING", "BYTESX"}) {
    EXPECT_EQ(ParseDataType(name), DataType::kInvalid) << name;
  }
  EXPECT_EQ(DataTypeName(DataType::kInvalid), "INVALID");
  EXPECT_EQ(DataTypeSize(DataType::kInvalid), 0U);
}

}  // namespace
}  // namespace penstock
