#include "base/log.h"

#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string>

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

std::string Timestamp() {
  timeval now;
  gettimeofday(&now, nullptr);
  tm utc;
  gmtime_r(&now.tv_sec, &utc);
  char text[48];
  const size_t n = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(text + n, sizeof(text) - n, ".%03dZ", static_cast<int>(now.tv_usec / 1000));
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

std::string FormatLine(LogLevel level, std::string_view component, std::string_view message) {
  std::string line;
  if (g_format.load(std::memory_order_relaxed) == LogFormat::kJson) {
    line.append("{\"time\":\"").append(Timestamp()).append("\",\"level\":\"");
    line.append(LevelName(level)).append("\",\"logger\":");
    AppendJson(line, component);
    line.append(",\"message\":");
    AppendJson(line, message);
    line.append("}\n");
    return line;
  }
  line.append(Timestamp()).append(" ").append(LevelName(level)).append(" ");
  AppendText(line, component);
  line.append(": ");
  AppendText(line, message);
  line.push_back('\n');
  return line;
}

}  // namespace

void SetLogging(const LogSettings& settings) {
  g_levels.store(Levels(settings), std::memory_order_relaxed);
  g_format.store(settings.format, std::memory_order_relaxed);
}

void Log(LogLevel level, std::string_view component, std::string_view message) {
  if ((g_levels.load(std::memory_order_relaxed) & Bit(level)) == 0) return;
  const std::string line = FormatLine(level, component, message);
  // A full or closed standard error must not stop the server: the line is lost, nothing else.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace penstock
