// The index of a checkpoint: what is refused, and that nothing is read beyond the file.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "backends/openvino/checkpoint_index.h"

namespace penstock::openvino {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMagic = 0xdb4775248b80fb57;
constexpr size_t kFooterBytes = 48;

template <typename T>
std::string Fixed(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

// Blocks shorter than 128 bytes, so that each number of a handle is one byte.
class CheckpointIndexTest : public testing::Test {
 protected:
  std::string Put(const std::string& block) {
    const std::string handle = {static_cast<char>(file_.size()), static_cast<char>(block.size())};
    const uint32_t crc = Crc32c(block + '\0');
    file_ += block + '\0' + Fixed(((crc >> 15) | (crc << 17)) + 0xa282ead8);
    return handle;
  }

  static std::string Entry(const std::string& key, const std::string& value) {
    return std::string{'\0', static_cast<char>(key.size()), static_cast<char>(value.size())} + key +
           value;
  }

  static std::string Block(const std::string& entries) {
    return entries + Fixed<uint32_t>(0) + Fixed<uint32_t>(1);  // one restart point, at the begin
  }

  void End(const std::string& meta, const std::string& index) {
    std::string footer = meta + index;
    footer.resize(kFooterBytes - sizeof kMagic);
    file_ += footer + Fixed(kMagic);
  }

  // A file with a data block, whose index holds `entries` of handles.
  void WriteIndex(const std::string& entries) {
    const std::string meta = Put(Block(""));
    End(meta, Put(Block(entries)));
  }

  void ExpectRefused(const std::string& reason) {
    const Status status = CheckCheckpointIndex(file_);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(reason));
  }

  std::string file_;
};

TEST(Crc32cTest, GivesTheExampleOfRfc3720) {
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
}

TEST_F(CheckpointIndexTest, WholeFile_IsTaken) {
  const std::string data = Put(Block(Entry("w", "where the values lie")));
  WriteIndex(Entry("x", data));
  EXPECT_TRUE(CheckCheckpointIndex(file_).ok()) << CheckCheckpointIndex(file_).ToString();
}

TEST_F(CheckpointIndexTest, DamagedDataBlock_IsRefused) {
  const std::string data = Put(Block(Entry("w", "where the values lie")));
  WriteIndex(Entry("x", data));
  file_[5] ^= 1;
  ExpectRefused("has not the checksum it was written with");
}

TEST_F(CheckpointIndexTest, ShortFile_IsRefused) {
  file_ = std::string(kFooterBytes - 1, 'x');
  ExpectRefused("has 47 bytes, fewer than its footer of 48");
}

TEST_F(CheckpointIndexTest, OtherFile_IsRefused) {
  file_ = std::string(100, 'x');
  ExpectRefused("is no index of a checkpoint");
}

TEST_F(CheckpointIndexTest, BlockBeyondTheEnd_IsRefused) {
  WriteIndex(Entry("x", "\x7f\x01"));
  ExpectRefused("has a block of 1 bytes at 127, beyond its end");
}

TEST_F(CheckpointIndexTest, BlockOfAllBytes_HasNoRoomForItsChecksum) {
  End("\x01\x01", "\x01\x01");
  ExpectRefused("beyond its end");
}

TEST_F(CheckpointIndexTest, EntryWithoutAHandle_IsRefused) {
  WriteIndex(Entry("x", ""));
  ExpectRefused("has no place where one of its blocks should be");
}

TEST_F(CheckpointIndexTest, NumberWithoutAnEnd_IsRefused) {
  End(std::string(38, '\xff'), "");
  ExpectRefused("has no place where one of its blocks should be");
}

TEST_F(CheckpointIndexTest, EntryBeyondItsBlock_IsRefused) {
  WriteIndex(std::string{'\0', '\x7f', '\x01'} + "x");
  ExpectRefused("has an entry beyond the end of its index");
}

TEST_F(CheckpointIndexTest, RestartPointsBeyondTheBlock_AreRefused) {
  const std::string meta = Put(Block(""));
  End(meta, Put(Fixed<uint32_t>(0) + Fixed<uint32_t>(2)));
  ExpectRefused("has an index without an end");
}

TEST_F(CheckpointIndexTest, EmptyIndexBlock_IsRefused) {
  const std::string meta = Put(Block(""));
  End(meta, Put(""));
  ExpectRefused("has an index without an end");
}

TEST_F(CheckpointIndexTest, AnyBytesBeforeAFooter_DoNoHarm) {
  std::mt19937 random(7);
  for (int round = 0; round < 20000; ++round) {
    file_.resize(random() % 80);
    for (char& each : file_) each = static_cast<char>(random());
    std::string footer(kFooterBytes - sizeof kMagic, '\0');
    for (char& each : footer) each = static_cast<char>(random() % 64);
    file_ += footer + Fixed(kMagic);
    EXPECT_FALSE(CheckCheckpointIndex(file_).ok()) << round;
  }
}

}  // namespace
}  // namespace penstock::openvino
