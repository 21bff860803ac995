#include "tensor/buffer.h"

#include <gtest/gtest.h>

#include <array>
#include <utility>
#include <vector>

namespace penstock {
namespace {

struct Released {
  std::vector<void*> data;
  size_t capacity_bytes = 0;
};

void Record(void* context, void* data, size_t capacity_bytes) noexcept {
  static_cast<Released*>(context)->data.push_back(data);
  static_cast<Released*>(context)->capacity_bytes = capacity_bytes;
}

TEST(BufferTest, Destructor_ReleasesOnceWithItsCapacity) {
  std::array<uint8_t, 8> bytes{};
  Released released;
  {
    const Buffer buffer(bytes.data(), 3, 8, &Record, &released);
    EXPECT_EQ(buffer.size(), 3U);
    EXPECT_EQ(buffer.span().data(), bytes.data());
    EXPECT_TRUE(released.data.empty());
  }
  EXPECT_EQ(released.data, std::vector<void*>{bytes.data()});
  EXPECT_EQ(released.capacity_bytes, 8U);
}

TEST(BufferTest, Move_LeavesNothingBehind) {
  std::array<uint8_t, 8> bytes{};
  Released released;
  {
    Buffer first(bytes.data(), 8, 8, &Record, &released);
    const Buffer second(std::move(first));
    EXPECT_EQ(first.size(), 0U);  // NOLINT: a moved-from buffer is empty
    EXPECT_EQ(second.data(), bytes.data());
  }
  EXPECT_EQ(released.data.size(), 1U);
}

TEST(BufferTest, MoveAssignment_ReleasesWhatWasThere) {
  std::array<uint8_t, 1> a{};
  std::array<uint8_t, 1> b{};
  Released released;
  Buffer buffer(a.data(), 1, 1, &Record, &released);
  buffer = Buffer(b.data(), 1, 1, &Record, &released);
  EXPECT_EQ(released.data, std::vector<void*>{a.data()});
  EXPECT_EQ(buffer.data(), b.data());
}

TEST(BufferTest, MoveAssignmentToItself_KeepsTheBytes) {
  std::array<uint8_t, 1> bytes{};
  Released released;
  Buffer buffer(bytes.data(), 1, 1, &Record, &released);
  Buffer& same = buffer;
  buffer = std::move(same);
  EXPECT_EQ(buffer.data(), bytes.data());
  EXPECT_TRUE(released.data.empty());
}

TEST(BufferTest, Default_IsEmptyAndReleasesNothing) {
  const Buffer buffer;
  EXPECT_EQ(buffer.size(), 0U);
  EXPECT_EQ(buffer.data(), nullptr);
}

}  // namespace
}  // namespace penstock
