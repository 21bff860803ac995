// Outcome: how one request ended.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace penstock::load {

// The numbers 0 to 16 are gRPC's status codes; the rest is what no status says.
enum class Outcome : uint8_t {
  kOk = 0,
  kWrongAnswer = 17,     // status OK, and not the message that was expected
  kRequestFailed = 18,   // an error inside a stream that goes on (ModelStreamInferResponse)
  kBadResponse = 19,     // not gRPC: HTTP status, no grpc-status, framing
  kConnectionLost = 20,  // closed or reset before the answer
  kNoAnswer = 21,        // none when the run ended
};
inline constexpr size_t kOutcomes = 22;

inline constexpr std::array<std::string_view, kOutcomes> kOutcomeNames = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
    "wrong answer",
    "failed in its stream",
    "not a gRPC response",
    "connection lost",
    "no answer",
};

// What came back for one request. Ownership: borrows its bytes from the connection, until the
// callback that brings it returns.
struct Answer {
  Outcome outcome = Outcome::kOk;
  std::string_view text;     // of a failure
  std::string_view message;  // of a success
};

}  // namespace penstock::load
