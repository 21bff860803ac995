#include "worker/line_relay.h"

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "base/strcat.h"
#include "base/utf8.h"

namespace penstock {
namespace {

LogLevel TakeLevel(std::string_view* line) {
  if (line->size() < 3 || (*line)[0] != '<' || (*line)[2] != '>') return LogLevel::kInfo;
  LogLevel level = LogLevel::kInfo;
  switch ((*line)[1]) {
    case '3':
      level = LogLevel::kError;
      break;
    case '4':
      level = LogLevel::kWarning;
      break;
    case '6':
      break;
    case '7':
      level = LogLevel::kDebug;
      break;
    default:
      return level;
  }
  line->remove_prefix(3);
  return level;
}

}  // namespace

LineRelay::LineRelay(LineRelayOptions options, Sink sink)
    : options_(options), sink_(std::move(sink)), tokens_(options.burst_lines) {}

void LineRelay::Append(std::span<const char> text, int64_t now_ns) {
  while (!text.empty()) {
    const auto end = std::find(text.begin(), text.end(), '\n');
    const auto length = static_cast<size_t>(end - text.begin());
    const size_t kept = std::min(length, options_.max_line_bytes - line_.size());
    line_.append(text.data(), kept);
    cut_bytes_ += length - kept;
    if (end == text.end()) return;
    EndLine(now_ns);
    text = text.subspan(length + 1);
  }
}

void LineRelay::Tick(int64_t now_ns) {
  if (left_out_ > 0 && MayPass(now_ns)) TellLeftOut();
}

void LineRelay::Finish(int64_t now_ns) {
  if (!line_.empty()) EndLine(now_ns);
  TellLeftOut();
}

std::string LineRelay::last_line() const {
  const std::string clean = ReplaceInvalidUtf8(last_line_);
  std::string_view line = clean;
  TakeLevel(&line);
  return std::string(line);
}

void LineRelay::EndLine(int64_t now_ns) {
  if (TakeToken(now_ns)) {
    TellLeftOut();
    const std::string clean = ReplaceInvalidUtf8(line_);
    std::string_view line = clean;
    const LogLevel level = TakeLevel(&line);
    if (cut_bytes_ == 0) {
      sink_(level, line);
    } else {
      sink_(level, StrCat(line, " [", cut_bytes_, " bytes more]"));
    }
  } else {
    left_out_ += 1;
    left_out_bytes_ += line_.size() + cut_bytes_;
  }
  if (line_.find_first_not_of(" \t\r") != std::string::npos) last_line_.swap(line_);
  line_.clear();
  cut_bytes_ = 0;
}

bool LineRelay::TakeToken(int64_t now_ns) {
  if (!MayPass(now_ns)) return false;
  tokens_ -= 1;
  return true;
}

// While lines are left out a whole second's worth is saved up first: what passes then reads as one.
bool LineRelay::MayPass(int64_t now_ns) {
  if (filled_ns_ != 0) {
    tokens_ += static_cast<double>(now_ns - filled_ns_) / kNsPerS * options_.lines_per_s;
  }
  tokens_ = std::min<double>(tokens_, options_.burst_lines);
  filled_ns_ = now_ns;
  return tokens_ >= (left_out_ > 0 ? std::max<double>(options_.lines_per_s, 1) : 1);
}

void LineRelay::TellLeftOut() {
  if (left_out_ == 0) return;
  sink_(LogLevel::kWarning, StrCat(left_out_, " lines (", left_out_bytes_,
                                   " bytes) of its output were left out: more than ",
                                   options_.lines_per_s, " a second"));
  left_out_ = left_out_bytes_ = 0;
}

}  // namespace penstock
