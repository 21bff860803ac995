#include "transport/compression.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace penstock {
namespace {

using ::testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

constexpr size_t kPlenty = 64 << 20;

Bytes BytesOf(const Buffer& buffer) { return {buffer.span().begin(), buffer.span().end()}; }

Bytes Repeated(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(i % 23);
  return bytes;
}

Bytes Random(size_t size) {
  std::mt19937 random(7);
  Bytes bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
  return bytes;
}

// A HostPool that keeps nothing, so that what is used too late is found.
HostPool& Pool() {
  static HostPool pool(0);
  return pool;
}

Bytes Compressed(Compression compression, const Bytes& bytes, int level = 6) {
  Result<Buffer> compressed = Compress(compression, bytes, level, Pool());
  EXPECT_TRUE(compressed.ok()) << compressed.status().ToString();
  return BytesOf(*compressed);
}

Status DecompressStatus(Compression compression, const Bytes& bytes, size_t max_bytes = kPlenty) {
  return Decompress(compression, bytes, max_bytes, Pool()).status();
}

TEST(CompressionNameTest, EachName_IsReadAndWritten) {
  EXPECT_EQ(CompressionFrom("identity"), Compression::kIdentity);
  EXPECT_EQ(CompressionFrom("gzip"), Compression::kGzip);
  EXPECT_EQ(CompressionFrom("deflate"), Compression::kDeflate);
  for (const std::string_view name : {"", "GZIP", "gzip ", "snappy", "zlib"}) {
    EXPECT_EQ(CompressionFrom(name), std::nullopt) << name;
  }
}

TEST(ChooseCompressionTest, GzipThenDeflateThenIdentity) {
  EXPECT_EQ(ChooseCompression("identity, deflate, gzip"), Compression::kGzip);
  EXPECT_EQ(ChooseCompression("identity,deflate"), Compression::kDeflate);
  EXPECT_EQ(ChooseCompression("deflate\t,br"), Compression::kDeflate);
  EXPECT_EQ(ChooseCompression(" gzip "), Compression::kGzip);
  for (const std::string_view list : {"", "identity", ",", " , ,", "snappy,zstd", "gzipped",
                                      "gzip;q=1", "GZIP", "gzip deflate"}) {
    EXPECT_EQ(ChooseCompression(list), Compression::kIdentity) << list;
  }
}

class EachCompressionTest : public testing::TestWithParam<Compression> {};

INSTANTIATE_TEST_SUITE_P(All, EachCompressionTest,
                         testing::Values(Compression::kIdentity, Compression::kGzip,
                                         Compression::kDeflate),
                         [](const auto& info) { return std::string(CompressionName(info.param)); });

TEST_P(EachCompressionTest, CompressedMessages_ComeBack) {
  for (const size_t size : {0UL, 1UL, 4095UL, 4096UL, 4097UL, 1UL << 20}) {
    for (const Bytes& bytes : {Repeated(size), Random(size)}) {
      for (const int level : {1, 6, 9}) {
        const Result<Buffer> back =
            Decompress(GetParam(), Compressed(GetParam(), bytes, level), size, Pool());
        ASSERT_TRUE(back.ok()) << size << ": " << back.status().ToString();
        EXPECT_EQ(BytesOf(*back), bytes) << size;
      }
    }
  }
}

TEST_P(EachCompressionTest, OneByteTooMany_IsResourceExhausted) {
  for (const size_t size : {1UL, 4097UL, 1UL << 20}) {
    const Bytes compressed = Compressed(GetParam(), Repeated(size));
    const Status status = DecompressStatus(GetParam(), compressed, size - 1);
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr(std::to_string(size - 1) + " bytes"));
  }
}

TEST(CompressTest, MemoryThatTheSystemDoesNotHave_IsResourceExhausted) {
  const std::span<const uint8_t> impossible(reinterpret_cast<const uint8_t*>(1), SIZE_MAX - 1);
  EXPECT_EQ(Compress(Compression::kIdentity, impossible, 1, Pool()).status().code(),
            StatusCode::kResourceExhausted);
}

class ZlibTest : public testing::TestWithParam<Compression> {};

INSTANTIATE_TEST_SUITE_P(All, ZlibTest, testing::Values(Compression::kGzip, Compression::kDeflate),
                         [](const auto& info) { return std::string(CompressionName(info.param)); });

TEST_P(ZlibTest, RepeatedBytes_AreMadeSmaller) {
  EXPECT_LT(Compressed(GetParam(), Repeated(1 << 20), 1).size(), 1U << 16);
}

TEST_P(ZlibTest, Bomb_EndsAtTheBoundWithoutTakingMuchMore) {
  const Bytes bomb = Compressed(GetParam(), Bytes(256 << 20), 9);
  ASSERT_LT(bomb.size(), 1U << 20);
  HostPool pool(1 << 30);  // keeps all that was ever taken
  const Result<Buffer> refused = Decompress(GetParam(), bomb, 8 << 20, pool);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_LE(pool.idle_bytes(), 32U << 20);
}

TEST_P(ZlibTest, SmallMessageUnderALargeBound_TakesLittle) {
  HostPool pool(1 << 30);
  { ASSERT_TRUE(Decompress(GetParam(), Compressed(GetParam(), Repeated(9)), kPlenty, pool).ok()); }
  EXPECT_LE(pool.idle_bytes(), 4096U);
}

TEST_P(ZlibTest, EveryPrefix_IsCutOff) {
  const Bytes whole = Compressed(GetParam(), Repeated(100));
  for (size_t size = 0; size < whole.size(); ++size) {
    const Status status = DecompressStatus(GetParam(), {whole.begin(), whole.begin() + size});
    EXPECT_EQ(status.code(), StatusCode::kInternal) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr("cut off"));
  }
}

TEST_P(ZlibTest, CutOffAtTheBound_IsCutOff) {
  Bytes bytes = Compressed(GetParam(), Repeated(100));
  bytes.pop_back();  // of the checksum: all 100 bytes are there
  EXPECT_EQ(DecompressStatus(GetParam(), bytes, 100).code(), StatusCode::kInternal);
}

TEST_P(ZlibTest, BytesAfterTheEnd_AreRefused) {
  Bytes bytes = Compressed(GetParam(), Repeated(100));
  const Bytes again = bytes;
  bytes.insert(bytes.end(), again.begin(), again.end());
  const Status status = DecompressStatus(GetParam(), bytes);
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(std::to_string(again.size()) + " bytes follow its end"));
}

TEST_P(ZlibTest, WrongChecksum_IsCorrupt) {
  Bytes bytes = Compressed(GetParam(), Repeated(100));
  bytes[bytes.size() - (GetParam() == Compression::kGzip ? 8 : 4)] ^= 1U;
  const Status status = DecompressStatus(GetParam(), bytes);
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr(CompressionName(GetParam())));
  EXPECT_THAT(std::string(status.message()), HasSubstr("corrupt"));
}

TEST_P(ZlibTest, TheOtherFormat_IsCorrupt) {
  const Compression other =
      GetParam() == Compression::kGzip ? Compression::kDeflate : Compression::kGzip;
  EXPECT_EQ(DecompressStatus(GetParam(), Compressed(other, Repeated(100))).code(),
            StatusCode::kInternal);
}

TEST(DecompressTest, DictionaryThatNobodyHas_IsCorrupt) {
  Bytes bytes(256);
  z_stream stream{};
  ASSERT_EQ(deflateInit(&stream, 6), Z_OK);
  const Bytes dictionary = Repeated(64);
  ASSERT_EQ(deflateSetDictionary(&stream, dictionary.data(), dictionary.size()), Z_OK);
  Bytes message = Repeated(32);
  stream.next_in = message.data();
  stream.avail_in = message.size();
  stream.next_out = bytes.data();
  stream.avail_out = bytes.size();
  ASSERT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  deflateEnd(&stream);
  const Bytes whole(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(stream.total_out));
  EXPECT_EQ(DecompressStatus(Compression::kDeflate, whole).code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace penstock
