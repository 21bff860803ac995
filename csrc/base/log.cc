#include "base/log.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string>

#include "base/clock.h"
#include "base/utf8.h"

namespace penstock {
namespace {

constexpr uint64_t Bit(LogLevel level) { return uint64_t{1} << static_cast<unsigned>(level); }

constexpr uint64_t Levels(const LogSettings& settings) {
  return (settings.debug ? Bit(LogLevel::kDebug) : 0) | (settings.info ? Bit(LogLevel::kInfo) : 0) |
         (settings.warning ? Bit(LogLevel::kWarning) : 0) |
         (settings.error ? Bit(LogLevel::kError) : 0);
}

std::atomic<uint64_t> g_levels{Levels(LogSettings{})};
std::atomic<LogFormat> g_format{LogFormat::kText};
std::atomic<bool> g_is_torn{false};  // the last line that was written lacks its end

constexpr std::string_view kNoMemoryText = "ERROR penstock: no memory for a line of the log\n";
constexpr std::string_view kNoMemoryJson =
    R"({"level":"ERROR","logger":"penstock","message":"no memory for a line of the log"})"
    "\n";

std::string_view LevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "DEBUG";
    case LogLevel::kInfo:
      return "INFO";
    case LogLevel::kWarning:
      return "WARNING";
    case LogLevel::kError:
      return "ERROR";
  }
  return "ERROR";
}

std::string Timestamp(int64_t unix_ms) {
  const auto seconds = static_cast<time_t>(unix_ms / 1000);
  tm utc;
  gmtime_r(&seconds, &utc);
  char text[48];
  const size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(text + n, sizeof(text) - n, ".%03dZ", static_cast<int>(unix_ms % 1000));
  return text;
}

// Whether a terminal would obey the character, or who reads lines would end one there: C0, DEL, C1
// and Unicode's own separators.
bool IsControl(std::string_view character) {
  const auto byte = [character](size_t at) { return static_cast<unsigned char>(character[at]); };
  if (character.size() == 1) return byte(0) < 0x20 || byte(0) == 0x7F;
  if (character.size() == 2) return byte(0) == 0xC2 && byte(1) < 0xA0;
  return character == "\u2028" || character == "\u2029";
}

template <typename Visit>
void ForEachCharacter(std::string_view text, Visit visit) {
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    visit(length > 0 ? text.substr(0, length) : std::string_view("\uFFFD"));
    text.remove_prefix(std::max<size_t>(length, 1));
  }
}

// REQUIRES: a character of at most three bytes, as those of IsControl are.
void AppendEscape(std::string& out, std::string_view character) {
  unsigned code = static_cast<unsigned char>(character[0]) & (0xFFU >> character.size());
  for (const char c : character.substr(1))
    code = code << 6 | (static_cast<unsigned char>(c) & 0x3F);
  char escape[8];
  snprintf(escape, sizeof(escape), "\\u%04x", code);
  out.append(escape);
}

void AppendJson(std::string& out, std::string_view text) {
  out.push_back('"');
  ForEachCharacter(text, [&out](std::string_view character) {
    if (IsControl(character)) {
      AppendEscape(out, character);
    } else {
      if (character == "\"" || character == "\\") out.push_back('\\');
      out.append(character);
    }
  });
  out.push_back('"');
}

// A message is one line: a control character in it must not forge another.
void AppendText(std::string& out, std::string_view text) {
  ForEachCharacter(text, [&out](std::string_view character) {
    out.append(IsControl(character) ? " " : character);
  });
}

bool IsPlain(std::string_view text) {
  bool is_plain = !text.empty();
  ForEachCharacter(text, [&is_plain](std::string_view character) {
    is_plain = is_plain && !IsControl(character) &&
               std::string_view(" \"=\\").find(character) == std::string_view::npos;
  });
  return is_plain;
}

void AppendJsonLine(std::string& line, const LogEntry& entry) {
  line.append("{\"time\":\"").append(Timestamp(entry.unix_ms));
  line.append("\",\"level\":\"").append(LevelName(entry.level)).append("\",\"logger\":");
  AppendJson(line, entry.component);
  line.append(",\"message\":");
  AppendJson(line, entry.message);
  for (const LogField& field : entry.fields) {
    line.append(",\"").append(field.name).append("\":");
    if (field.is_number) {
      line.append(field.value);
    } else {
      AppendJson(line, field.value);
    }
  }
  line.append("}\n");
}

// As the system's daemons write levels.
std::string_view RelayedLevel(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "<7>";
    case LogLevel::kInfo:
      return "<6>";
    case LogLevel::kWarning:
      return "<4>";
    case LogLevel::kError:
      return "<3>";
  }
  return "<3>";
}

void AppendTextLine(std::string& line, const LogEntry& entry, LogFormat format) {
  if (format == LogFormat::kRelayed) {
    line.append(RelayedLevel(entry.level));
  } else {
    line.append(Timestamp(entry.unix_ms)).append(" ").append(LevelName(entry.level)).append(" ");
  }
  AppendText(line, entry.component);
  line.append(": ");
  AppendText(line, entry.message);
  for (const LogField& field : entry.fields) {
    line.append(" ").append(field.name).append("=");
    if (IsPlain(field.value)) {
      AppendText(line, field.value);
    } else {
      AppendJson(line, field.value);
    }
  }
  line.push_back('\n');
}

bool IsWritten(LogLevel level) {
  return (g_levels.load(std::memory_order_relaxed) & Bit(level)) != 0;
}

// Whole lines of at most PIPE_BUF bytes; the first alone where that is longer.
std::string_view FirstPiece(std::string_view lines) {
  if (lines.size() <= PIPE_BUF) return lines;
  size_t end = lines.rfind('\n', PIPE_BUF - 1);
  if (end == std::string_view::npos) end = lines.find('\n');
  return lines.substr(0, end == std::string_view::npos ? lines.size() : end + 1);
}

// Writes until nothing is left or nothing more is taken; returns how much was written.
size_t WriteSome(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const ssize_t written = write(STDERR_FILENO, text.data() + at, text.size() - at);
    if (written > 0) at += static_cast<size_t>(written);
    if (written == 0 || (written < 0 && errno != EINTR)) break;
  }
  return at;
}

// A full or closed standard error must not stop the server: the lines are lost, nothing else. One
// that went out in part is ended before the next.
bool WritePiece(std::string_view piece) {
  if (g_is_torn.exchange(false, std::memory_order_relaxed) && WriteSome("\n") == 0) {
    g_is_torn.store(true, std::memory_order_relaxed);
    return false;
  }
  const size_t written = WriteSome(piece);
  const bool is_whole = written == piece.size();
  if (written > 0 && !is_whole) g_is_torn.store(true, std::memory_order_relaxed);
  return is_whole;
}

}  // namespace

void SetLogging(const LogSettings& settings) {
  g_levels.store(Levels(settings), std::memory_order_relaxed);
  g_format.store(settings.format, std::memory_order_relaxed);
}

void AppendLogLine(std::string* out, const LogEntry& entry) {
  if (!IsWritten(entry.level)) return;
  const LogFormat format = g_format.load(std::memory_order_relaxed);
  if (format == LogFormat::kJson) {
    AppendJsonLine(*out, entry);
  } else {
    AppendTextLine(*out, entry, format);
  }
}

size_t WriteLogLines(std::string_view lines) noexcept {
  size_t lost = 0;
  while (!lines.empty()) {
    const std::string_view piece = FirstPiece(lines);
    if (!WritePiece(piece)) lost += std::count(piece.begin(), piece.end(), '\n');
    lines.remove_prefix(piece.size());
  }
  return lost;
}

void Log(LogLevel level, std::string_view component, std::string_view message,
         std::span<const LogField> fields) noexcept {
  if (!IsWritten(level)) return;
  try {
    std::string line;
    AppendLogLine(&line, {UnixTimeMs(), level, component, message, fields});
    WriteLogLines(line);
  } catch (...) {  // who logs may be about to clear up after the same
    WriteLogLines(g_format.load(std::memory_order_relaxed) == LogFormat::kJson ? kNoMemoryJson
                                                                               : kNoMemoryText);
  }
}

}  // namespace penstock
