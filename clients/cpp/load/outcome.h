// Outcome: how one request ended.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/status.h"

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

// As reports and Python have it. REQUIRES: outcome < kOutcomes.
inline std::string_view OutcomeName(size_t outcome) {
  constexpr std::string_view kNoStatus[] = {"wrong answer", "failed in its stream",
                                            "not a gRPC response", "connection lost", "no answer"};
  constexpr auto kFirst = static_cast<size_t>(Outcome::kWrongAnswer);
  return outcome < kFirst ? StatusCodeName(static_cast<StatusCode>(outcome))
                          : kNoStatus[outcome - kFirst];
}

// What came back for one request. Ownership: borrows its bytes from the connection, until the
// callback that brings it returns.
struct Answer {
  Outcome outcome = Outcome::kOk;
  std::string_view text;     // of a failure
  std::string_view message;  // of a success
};

}  // namespace penstock::load
