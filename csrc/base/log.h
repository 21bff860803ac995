// Log: one structured line per event on standard error, in the same two formats as the Python side
// (server/penstock/observe/log.py): text, or one JSON object per line. Never under a lock of ours,
// never payloads.

#pragma once

#include <string_view>

namespace penstock {

enum class LogLevel : int { kDebug = 10, kInfo = 20, kWarning = 30, kError = 40 };
enum class LogFormat { kText, kJson };

// Process-wide settings; lines below `level` are dropped.
// Threading: thread-safe (atomics).
void SetLogging(LogLevel level, LogFormat format);

// Writes one line with one write(2), so lines of several threads never mix.
// Threading: thread-safe.
void Log(LogLevel level, std::string_view component, std::string_view message);

}  // namespace penstock
