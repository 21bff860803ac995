// The texts of gRPC over HTTP/2 (gRPC's PROTOCOL-HTTP2.md): timeouts, messages, binary metadata.
//
//   grpc-timeout  = 1*8DIGIT ("H" / "M" / "S" / "m" / "u" / "n")
//   grpc-message  = *( %x20-24 / %x26-7E / "%" 2HEXDIG )       bytes, UTF-8 by custom
//   "-bin" value  = base64 (RFC 4648), with or without padding
//
// What comes in is any bytes; nothing here looks beyond them, allocates more than they are long or
// fails but as it says.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace penstock {

// Nanoseconds of a grpc-timeout; at most INT64_MAX, which stands for all that is longer (292
// years). nullopt: malformed. Zero is a time that is up.
std::optional<int64_t> ParseGrpcTimeoutNs(std::string_view text);

// `message` as grpc-message carries it. Any bytes will do.
std::string PercentEncode(std::string_view message);

// The bytes that `text` stands for; a malformed escape stands for itself, as gRPC asks: a text of
// an error must not get lost over its form.
std::string PercentDecode(std::string_view text);

// The bytes of one value of "-bin" metadata; nullopt: malformed. Any padding at the end is passed
// over, bits that no byte has room for must be zero, as in gRPC's own servers. Several values that
// were joined by commas are for the caller to take apart.
std::optional<std::string> DecodeBinaryHeader(std::string_view text);

// `bytes` as a value of "-bin" metadata, without padding.
std::string EncodeBinaryHeader(std::string_view bytes);

}  // namespace penstock
