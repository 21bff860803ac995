// Any bytes as a compressed message, and as one to compress.
//
//   input = how bound bytes      how: 1 byte, modulo 2 the format, the rest a level
//                                bound: 2 bytes, times 16 what the message may grow to
//
// The sanitizers judge; beyond that, what comes out is within its bound or there is a reason that
// the contract names, and what was compressed comes back as it was.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>

#include "memory/host_pool.h"
#include "transport/compression.h"

namespace penstock {
namespace {

constexpr size_t kHeadBytes = 3;

void Require(bool condition) {
  if (!condition) std::abort();
}

volatile unsigned char sink;

void TryDecompress(Compression compression, std::span<const uint8_t> bytes, size_t max_bytes,
                   HostPool& pool) {
  const Result<Buffer> message = Decompress(compression, bytes, max_bytes, pool);
  if (message.ok()) {
    Require(message->size() <= max_bytes);
    for (const uint8_t byte : message->span()) sink = byte;
    return;
  }
  const StatusCode code = message.status().code();
  Require(code == StatusCode::kInternal || code == StatusCode::kResourceExhausted);
  Require(!message.status().message().empty());
}

void TryThereAndBack(Compression compression, std::span<const uint8_t> bytes, int level,
                     HostPool& pool) {
  const Result<Buffer> compressed = Compress(compression, bytes, level, pool);
  Require(compressed.ok());
  const Result<Buffer> back = Decompress(compression, compressed->span(), bytes.size(), pool);
  Require(back.ok() && back->size() == bytes.size());
  Require(bytes.empty() || std::memcmp(back->data(), bytes.data(), bytes.size()) == 0);
  if (bytes.empty()) return;
  const Status short_of_one =
      Decompress(compression, compressed->span(), bytes.size() - 1, pool).status();
  Require(short_of_one.code() == StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace penstock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;  // NOLINT: the entry's name is fixed, and so is its scope
  if (size < kHeadBytes) return 0;
  const Compression compression = data[0] % 2 == 0 ? Compression::kGzip : Compression::kDeflate;
  const int level = 1 + data[0] / 2 % 9;
  const size_t max_bytes = (size_t{data[1]} << 8U | data[2]) * 16;
  const std::span<const uint8_t> bytes(data + kHeadBytes, size - kHeadBytes);
  HostPool pool(0);  // keeps nothing idle: a buffer used too late is a use after free
  TryDecompress(compression, bytes, max_bytes, pool);
  TryThereAndBack(compression, bytes, level, pool);
  return 0;
}
