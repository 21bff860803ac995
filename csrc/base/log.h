// Log: one structured line per event on standard error, in the same two formats as the Python side
// (server/penstock/observe/log.py): text, or one JSON object per line. Never under a lock of ours,
// never payloads. What a line holds may come from a client: no terminal and no reader of lines obeys
// it (controls are blanks or escapes), and bytes that are no UTF-8 are U+FFFD.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace penstock {

enum class LogLevel : int { kDebug = 10, kInfo = 20, kWarning = 30, kError = 40 };
// kRelayed: for a process whose lines another one logs (worker/line_relay.h): "<3>component: message".
enum class LogFormat { kText, kJson, kRelayed };

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

// Writes one line. Where there is no memory for it, one that says so.
// Threading: thread-safe; lines of several threads and processes do not mix (WriteLogLines).
void Log(LogLevel level, std::string_view component, std::string_view message,
         std::span<const LogField> fields = {}) noexcept;

// What a line says, and when it happened.
struct LogEntry {
  int64_t unix_ms;
  LogLevel level;
  std::string_view component;
  std::string_view message;
  std::span<const LogField> fields;
};

// For who writes many lines at once. Appends a line as Log would write it; nothing where its level
// is not written.
void AppendLogLine(std::string* out, const LogEntry& entry);

// Writes whole lines, in pieces that a pipe takes whole or not at all (PIPE_BUF); a line that is
// longer goes alone, and may be cut short or mixed with another process's. Returns how many lines
// were lost: standard error is full and does not block, or is closed.
// Blocking: as long as standard error does.
size_t WriteLogLines(std::string_view lines) noexcept;

}  // namespace penstock
