// Compression of single gRPC messages: grpc-encoding and grpc-accept-encoding.

#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/status.h"
#include "memory/host_pool.h"
#include "tensor/buffer.h"

namespace penstock {

enum class Compression : uint8_t {
  kIdentity,
  kGzip,     // RFC 1952, one member
  kDeflate,  // RFC 1950, zlib's format: what gRPC calls deflate
};

// By the name that grpc-encoding has for it; nullopt: one we do not have.
std::optional<Compression> CompressionFrom(std::string_view name);
std::string_view CompressionName(Compression compression);

// What to answer with a client that sent this grpc-accept-encoding: gzip if it is in the list, else
// deflate, else identity. Names that nobody knows are passed over.
Compression ChooseCompression(std::string_view accept_encoding);

// The message in `bytes`; with kIdentity a copy. Memory is taken as output comes and at most
// doubled each time, never on the word of the input: 1 KB that says it is 1 GB costs as much as
// it really holds, and no more than about twice `max_bytes` for the time of the call.
// Threading: thread-safe. Blocking: computes, about 1 s for 300 MB.
// Status: RESOURCE_EXHAUSTED where the message is larger than `max_bytes`, or the system has no
// memory for it; INTERNAL for bytes that are corrupt, cut off, or go on after their end.
Result<Buffer> Decompress(Compression compression, std::span<const uint8_t> bytes, size_t max_bytes,
                          HostPool& pool);

// `bytes` compressed; with kIdentity a copy. The result may be a little larger than `bytes`: who
// calls sends whichever is smaller. It holds memory for the worst case until it is released.
// `level` is zlib's, 1 (quick) to 9 (small).
// Threading: thread-safe. Blocking: computes, about 1 s for 20 to 100 MB.
// Status: RESOURCE_EXHAUSTED where the system has no memory for it.
Result<Buffer> Compress(Compression compression, std::span<const uint8_t> bytes, int level,
                        HostPool& pool);

}  // namespace penstock
