#include "transport/compression.h"

#include <zlib.h>

#include <algorithm>
#include <cassert>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <utility>

#include "base/strcat.h"

namespace penstock {
namespace {

constexpr size_t kFirstBytes = 4096;
constexpr size_t kMaxGuess = 2;  // times the input
constexpr int kMemoryLevel = 8;  // zlib's own choice
constexpr int kGzipBits = 16;    // beside the window's bits: gzip's header and trailer

int WindowBits(Compression compression) {
  return compression == Compression::kGzip ? MAX_WBITS + kGzipBits : MAX_WBITS;
}

// zlib counts 32 bits at a time.
uInt Step(size_t bytes) {
  return static_cast<uInt>(std::min<size_t>(bytes, std::numeric_limits<uInt>::max()));
}

Status NoMemory() {
  return ResourceExhausted("the system has no memory to (de)compress a message");
}

Status TooLarge(size_t max_bytes) {
  return ResourceExhausted(
      StrCat("the decompressed message is larger than ", max_bytes, " bytes, which is the limit"));
}

Status Corrupt(Compression compression, std::string_view what) {
  return Internal(StrCat("cannot decompress the message (grpc-encoding ",
                         CompressionName(compression), "): ", what));
}

Result<Buffer> CopyOf(std::span<const uint8_t> bytes, HostPool& pool) {
  Buffer copy = pool.Allocate(bytes.size());
  if (!bytes.empty()) std::memcpy(copy.data(), bytes.data(), bytes.size());
  return copy;
}

// A run of zlib's inflate over one message.
class Inflater {
 public:
  Inflater(std::span<const uint8_t> bytes, size_t max_bytes, HostPool& pool)
      : left_(bytes), max_bytes_(max_bytes), pool_(pool) {}
  ~Inflater() { inflateEnd(&stream_); }  // harmless where Run never began
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  Result<Buffer> Run(Compression compression) {
    if (inflateInit2(&stream_, WindowBits(compression)) != Z_OK) return NoMemory();
    Grow(std::min(max_bytes_, std::max(kFirstBytes, left_.size() * kMaxGuess)));
    int code = Z_OK;
    while (code == Z_OK) {
      if (written_ == max_bytes_) {
        code = EndWithoutOutput();
        break;
      }
      if (written_ == out_.size()) Grow(std::min(max_bytes_, 2 * out_.size()));
      code = Turn(out_.span().subspan(written_));
    }
    if (code == Z_MEM_ERROR) return NoMemory();
    if (code == kOverflow) return TooLarge(max_bytes_);
    if (code == Z_BUF_ERROR) return Corrupt(compression, "it is cut off");
    if (code != Z_STREAM_END) return Corrupt(compression, "its bytes are corrupt");
    if (!left_.empty()) {
      return Corrupt(compression, StrCat(left_.size(), " bytes follow its end"));
    }
    out_.Truncate(written_);
    return std::move(out_);
  }

 private:
  static constexpr int kOverflow = 1000;  // none of zlib's

  // The room is used up: all that may still come is the end.
  int EndWithoutOutput() {
    uint8_t excess = 0;
    int code = Z_OK;
    while (code == Z_OK && written_ == max_bytes_) code = Turn({&excess, 1});
    return written_ > max_bytes_ ? kOverflow : code;
  }

  // Z_BUF_ERROR: nothing came of it, there is no input left.
  int Turn(std::span<uint8_t> room) {
    stream_.next_in = const_cast<Bytef*>(left_.data());  // zlib only reads there
    stream_.avail_in = Step(left_.size());
    stream_.next_out = room.data();
    stream_.avail_out = Step(room.size());
    const int code = inflate(&stream_, Z_NO_FLUSH);
    left_ = left_.subspan(static_cast<size_t>(stream_.next_in - left_.data()));
    written_ += static_cast<size_t>(stream_.next_out - room.data());
    return code;
  }

  void Grow(size_t size_bytes) {
    Buffer larger = pool_.Allocate(size_bytes);
    if (written_ > 0) std::memcpy(larger.data(), out_.data(), written_);
    out_ = std::move(larger);
  }

  std::span<const uint8_t> left_;
  const size_t max_bytes_;
  HostPool& pool_;
  z_stream stream_{};
  Buffer out_;
  size_t written_ = 0;
};

Result<Buffer> Deflate(z_stream& stream, std::span<const uint8_t> bytes, HostPool& pool) {
  Buffer out = pool.Allocate(deflateBound(&stream, bytes.size()));
  size_t written = 0;
  int code = Z_OK;
  while (code == Z_OK) {
    stream.next_in = const_cast<Bytef*>(bytes.data());  // zlib only reads there
    stream.avail_in = Step(bytes.size());
    stream.next_out = out.data() + written;
    stream.avail_out = Step(out.size() - written);
    const int flush = stream.avail_in == bytes.size() ? Z_FINISH : Z_NO_FLUSH;
    code = deflate(&stream, flush);
    bytes = bytes.subspan(static_cast<size_t>(stream.next_in - bytes.data()));
    written = static_cast<size_t>(stream.next_out - out.data());
  }
  assert(code == Z_STREAM_END);  // there was room for the worst case
  out.Truncate(written);
  return out;
}

}  // namespace

std::optional<Compression> CompressionFrom(std::string_view name) {
  for (const Compression each :
       {Compression::kIdentity, Compression::kGzip, Compression::kDeflate}) {
    if (name == CompressionName(each)) return each;
  }
  return std::nullopt;
}

std::string_view CompressionName(Compression compression) {
  switch (compression) {
    case Compression::kGzip:
      return "gzip";
    case Compression::kDeflate:
      return "deflate";
    case Compression::kIdentity:
      break;
  }
  return "identity";
}

Compression ChooseCompression(std::string_view accept_encoding) {
  bool deflate_will_do = false;
  while (!accept_encoding.empty()) {
    const size_t comma = std::min(accept_encoding.find(','), accept_encoding.size());
    std::string_view name = accept_encoding.substr(0, comma);
    accept_encoding.remove_prefix(std::min(comma + 1, accept_encoding.size()));
    name.remove_prefix(std::min(name.find_first_not_of(" \t"), name.size()));
    name = name.substr(0, name.find_last_not_of(" \t") + 1);
    if (name == CompressionName(Compression::kGzip)) return Compression::kGzip;
    if (name == CompressionName(Compression::kDeflate)) deflate_will_do = true;
  }
  return deflate_will_do ? Compression::kDeflate : Compression::kIdentity;
}

Result<Buffer> Decompress(Compression compression, std::span<const uint8_t> bytes, size_t max_bytes,
                          HostPool& pool) {
  try {
    if (compression != Compression::kIdentity) {
      return Inflater(bytes, max_bytes, pool).Run(compression);
    }
    if (bytes.size() > max_bytes) return TooLarge(max_bytes);
    return CopyOf(bytes, pool);
  } catch (const std::bad_alloc&) {
    return NoMemory();
  }
}

Result<Buffer> Compress(Compression compression, std::span<const uint8_t> bytes, int level,
                        HostPool& pool) {
  assert(level >= 1 && level <= 9);
  try {
    if (compression == Compression::kIdentity) return CopyOf(bytes, pool);
    z_stream stream{};
    if (deflateInit2(&stream, level, Z_DEFLATED, WindowBits(compression), kMemoryLevel,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
      return NoMemory();
    }
    const std::unique_ptr<z_stream, int (*)(z_stream*)> ended(&stream, deflateEnd);
    return Deflate(stream, bytes, pool);
  } catch (const std::bad_alloc&) {
    return NoMemory();
  }
}

}  // namespace penstock
