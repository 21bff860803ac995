// QuietLog: no log lines of faults that are meant, while it lives.

#pragma once

#include "base/log.h"

namespace penstock {

struct QuietLog {
  QuietLog() { SetLogging({.info = false, .warning = false, .error = false}); }
  ~QuietLog() { SetLogging({}); }
  QuietLog(const QuietLog&) = delete;
  QuietLog& operator=(const QuietLog&) = delete;
};

}  // namespace penstock
