// LineRelay: what a worker prints, line by line, bounded in length and rate.
//
// A line may begin with a level as the system's daemons write it: "<3>" error, "<4>" warning, "<6>"
// information, "<7>" debug. Lines beyond the rate are counted and left out, and the count is told.

#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "base/log.h"

namespace penstock {

struct LineRelayOptions {
  size_t max_line_bytes = 4096;  // what is longer is cut
  uint32_t burst_lines = 1000;   // at once
  uint32_t lines_per_s = 100;    // for as long as it goes on
};

// Pure: time is what it is told.
// Threading: thread-compatible.
class LineRelay {
 public:
  using Sink = std::function<void(LogLevel level, std::string_view line)>;

  LineRelay(LineRelayOptions options, Sink sink);

  // Takes what was printed.
  void Append(std::span<const char> text, int64_t now_ns);
  // Time passes: what was left out is told once lines may pass again.
  void Tick(int64_t now_ns);
  // Nothing more will be printed: an unfinished line is one, and what was left out is told.
  void Finish(int64_t now_ns);
  // Lines are being left out now: there is no hurry to read on.
  bool is_flooded() const { return left_out_ > 0; }
  // The last line that was not blank, passed or left out, without its level; "" = there was none.
  std::string last_line() const;

 private:
  void EndLine(int64_t now_ns);
  bool TakeToken(int64_t now_ns);
  bool MayPass(int64_t now_ns);
  void TellLeftOut();

  const LineRelayOptions options_;
  const Sink sink_;
  std::string line_;
  std::string last_line_;   // as it came
  uint64_t cut_bytes_ = 0;  // of this line
  double tokens_ = 0;       // lines that may pass now
  int64_t filled_ns_ = 0;   // when tokens_ was brought up to date
  uint64_t left_out_ = 0;   // lines since the last one that passed
  uint64_t left_out_bytes_ = 0;
};

}  // namespace penstock
