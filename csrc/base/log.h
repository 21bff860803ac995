// Log: one structured line per event on standard error, in the same two formats as the Python side
// (server/penstock/observe/log.py): text, or one JSON object per line. Never under a lock of ours,
// never payloads.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace penstock {

enum class LogLevel : int { kDebug = 10, kInfo = 20, kWarning = 30, kError = 40 };
enum class LogFormat { kText, kJson };

// Which lines are written, and how. Each level is on or off by itself, as Triton's are.
struct LogSettings {
  bool debug = false;
  bool info = true;
  bool warning = true;
  bool error = true;
  LogFormat format = LogFormat::kText;
};

// Process-wide; may be called again at any time.
// Threading: thread-safe (atomics); a line that is being logged meanwhile may go either way.
void SetLogging(const LogSettings& settings);

// What a line is about, beside its message: `model`, `version`, `request_id`. A member of the JSON
// object, or name=value at the end of a text line.
struct LogField {
  std::string_view name;
  std::string_view value;
  bool is_number = false;  // `value` is one, as JSON writes it
};

// Writes one line with one write(2), so lines of several threads never mix.
// Threading: thread-safe.
void Log(LogLevel level, std::string_view component, std::string_view message,
         std::span<const LogField> fields = {});

// For who writes many lines at once. Appends a line as Log would write it, of something that happened
// at `unix_ms`; nothing where its level is not written.
void AppendLogLine(std::string* out, int64_t unix_ms, LogLevel level, std::string_view component,
                   std::string_view message, std::span<const LogField> fields);
void WriteLogLines(std::string_view lines);

}  // namespace penstock
