#include "base/log.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string>

#include "base/clock.h"

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

void AppendJson(std::string& out, std::string_view text) {
  out.push_back('"');
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      snprintf(escape, sizeof(escape), "\\u%04x", c);
      out.append(escape);
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
}

// A message is one line: a control character in it must not forge another.
void AppendText(std::string& out, std::string_view text) {
  for (const char c : text) out.push_back(static_cast<unsigned char>(c) < 0x20 ? ' ' : c);
}

bool IsPlain(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != '"' && c != '=' && c != '\\';
  });
}

void AppendJsonLine(std::string& line, std::string_view level, std::string_view component,
                    std::string_view message, std::span<const LogField> fields) {
  line.append("\",\"level\":\"").append(level).append("\",\"logger\":");
  AppendJson(line, component);
  line.append(",\"message\":");
  AppendJson(line, message);
  for (const LogField& field : fields) {
    line.append(",\"").append(field.name).append("\":");
    if (field.is_number) {
      line.append(field.value);
    } else {
      AppendJson(line, field.value);
    }
  }
  line.append("}\n");
}

void AppendTextLine(std::string& line, std::string_view level, std::string_view component,
                    std::string_view message, std::span<const LogField> fields) {
  line.append(" ").append(level).append(" ");
  AppendText(line, component);
  line.append(": ");
  AppendText(line, message);
  for (const LogField& field : fields) {
    line.append(" ").append(field.name).append("=");
    if (IsPlain(field.value)) {
      line.append(field.value);
    } else {
      AppendJson(line, field.value);
    }
  }
  line.push_back('\n');
}

bool IsWritten(LogLevel level) {
  return (g_levels.load(std::memory_order_relaxed) & Bit(level)) != 0;
}

}  // namespace

void SetLogging(const LogSettings& settings) {
  g_levels.store(Levels(settings), std::memory_order_relaxed);
  g_format.store(settings.format, std::memory_order_relaxed);
}

void AppendLogLine(std::string* out, int64_t unix_ms, LogLevel level, std::string_view component,
                   std::string_view message, std::span<const LogField> fields) {
  if (!IsWritten(level)) return;
  if (g_format.load(std::memory_order_relaxed) == LogFormat::kJson) {
    out->append("{\"time\":\"").append(Timestamp(unix_ms));
    AppendJsonLine(*out, LevelName(level), component, message, fields);
  } else {
    out->append(Timestamp(unix_ms));
    AppendTextLine(*out, LevelName(level), component, message, fields);
  }
}

// A full or closed standard error must not stop the server: the lines are lost, nothing else.
void WriteLogLines(std::string_view lines) {
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, lines.data(), lines.size());
}

void Log(LogLevel level, std::string_view component, std::string_view message,
         std::span<const LogField> fields) {
  if (!IsWritten(level)) return;
  std::string line;
  AppendLogLine(&line, UnixTimeMs(), level, component, message, fields);
  WriteLogLines(line);
}

}  // namespace penstock
