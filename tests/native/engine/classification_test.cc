#include "engine/classification.h"

#include <gtest/gtest.h>

#include <limits>

#include "infer_message.h"

namespace penstock {
namespace {

std::vector<std::string> Elements(const TensorView& view) {
  std::vector<std::string> elements;
  std::string rest = TextOf(view.data);
  while (!rest.empty()) {
    uint32_t length = 0;
    std::memcpy(&length, rest.data(), sizeof(length));
    elements.push_back(rest.substr(sizeof(length), length));
    rest.erase(0, sizeof(length) + length);
  }
  return elements;
}

struct Classes {
  std::vector<std::string> elements;
  std::string shape;
};

template <typename T>
Classes Top(DataType dtype, const Shape& shape, const std::vector<T>& values, uint32_t classes,
            const std::vector<std::string>& labels = {}, bool has_batch_dimension = true) {
  const std::string bytes = RawOf(values);
  Buffer out;
  const TensorView view =
      Classify({"OUT", dtype, shape, SpanOf(bytes)}, has_batch_dimension, classes, labels, &out);
  EXPECT_EQ(view.dtype, DataType::kBytes);
  EXPECT_EQ(view.name, "OUT");
  return {Elements(view), view.shape.ToString()};
}

using Strings = std::vector<std::string>;

TEST(ClassificationTest, LargestFirstPerRow) {
  const Classes classes = Top<float>(DataType::kFp32, {2, 3}, {0.25F, 0.5F, 0.125F, 3, 2, 1}, 2);
  EXPECT_EQ(classes.elements, (Strings{"0.500000:1", "0.250000:0", "3.000000:0", "2.000000:1"}));
  EXPECT_EQ(classes.shape, "[2,2]");
}

TEST(ClassificationTest, WithoutBatchDimension_TheWholeTensorIsOneRow) {
  const Classes classes = Top<int32_t>(DataType::kInt32, {2, 2}, {1, -4, 9, 2}, 3, {}, false);
  EXPECT_EQ(classes.elements, (Strings{"9:2", "2:3", "1:0"}));
  EXPECT_EQ(classes.shape, "[3]");
}

TEST(ClassificationTest, MoreClassesThanValues_GivesAll) {
  const Classes classes = Top<uint8_t>(DataType::kUint8, {1, 2}, {7, 8}, UINT32_MAX);
  EXPECT_EQ(classes.elements, (Strings{"8:1", "7:0"}));
}

TEST(ClassificationTest, Labels_AreAddedWhereThereIsOne) {
  const Classes classes = Top<float>(DataType::kFp32, {1, 3}, {1, 2, 3}, 3, {"cat", "dog"});
  EXPECT_EQ(classes.elements, (Strings{"3.000000:2", "2.000000:1:dog", "1.000000:0:cat"}));
}

TEST(ClassificationTest, Ties_ByIndexAndNotANumberLast) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const Classes classes = Top<float>(DataType::kFp32, {1, 6}, {nan, 1, nan, 1, -inf, inf}, 6);
  std::vector<char> order;
  for (const std::string& element : classes.elements) order.push_back(element.back());
  EXPECT_EQ(order, (std::vector<char>{'5', '1', '3', '4', '0', '2'}));
}

TEST(ClassificationTest, EveryNumber_PrintsAsItself) {
  EXPECT_EQ(Top<uint8_t>(DataType::kBool, {1, 1}, {1}, 1).elements, Strings{"1:0"});
  EXPECT_EQ(Top<int8_t>(DataType::kInt8, {1, 1}, {-128}, 1).elements, Strings{"-128:0"});
  EXPECT_EQ(Top<uint16_t>(DataType::kUint16, {1, 1}, {65535}, 1).elements, Strings{"65535:0"});
  EXPECT_EQ(Top<int16_t>(DataType::kInt16, {1, 1}, {-2}, 1).elements, Strings{"-2:0"});
  EXPECT_EQ(Top<uint32_t>(DataType::kUint32, {1, 1}, {4294967295U}, 1).elements,
            Strings{"4294967295:0"});
  EXPECT_EQ(Top<uint64_t>(DataType::kUint64, {1, 1}, {UINT64_MAX}, 1).elements,
            Strings{"18446744073709551615:0"});
  EXPECT_EQ(Top<int64_t>(DataType::kInt64, {1, 1}, {INT64_MIN}, 1).elements,
            Strings{"-9223372036854775808:0"});
  EXPECT_EQ(Top<double>(DataType::kFp64, {1, 1}, {0.5}, 1).elements, Strings{"0.500000:0"});
  EXPECT_EQ(Top<uint16_t>(DataType::kFp16, {1, 1}, {0x3c00}, 1).elements, Strings{"1.000000:0"});
  EXPECT_EQ(Top<uint16_t>(DataType::kBf16, {1, 1}, {0xc000}, 1).elements, Strings{"-2.000000:0"});
}

TEST(ClassificationTest, NoValues_NoClasses) {
  const Classes classes = Top<float>(DataType::kFp32, {2, 0}, {}, 3);
  EXPECT_TRUE(classes.elements.empty());
  EXPECT_EQ(classes.shape, "[2,0]");
}

}  // namespace
}  // namespace penstock
