#include "transport/access_log.h"

#include <cstdio>
#include <exception>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"
#include "base/utf8.h"

namespace penstock {
namespace {

constexpr const char* kLogger = "penstock.access";
constexpr size_t kMaxWriteBytes = 64 << 10;

std::string Milliseconds(int64_t ns) {
  char text[32];
  snprintf(text, sizeof(text), "%.3f", static_cast<double>(ns) / 1e6);
  return text;
}

}  // namespace

void AppendAccessLine(const AccessRecord& record, std::string* out) {
  // A text may be cut in the middle of a character, and a client's may be anything.
  const std::string method = ReplaceInvalidUtf8(record.method.view());
  const std::string model = ReplaceInvalidUtf8(record.model.view());
  const std::string version = ReplaceInvalidUtf8(record.version.view());
  const std::string request_id = ReplaceInvalidUtf8(record.request_id.view());
  const std::string duration = Milliseconds(record.ended_ns - record.begun_ns);
  const std::string received = std::to_string(record.received_bytes);
  const std::string sent = std::to_string(record.sent_bytes);
  std::vector<LogField> fields = {{"method", method}, {"status", StatusCodeName(record.status)}};
  if (!model.empty()) fields.push_back({"model", model});
  if (!version.empty()) fields.push_back({"version", version});
  if (!request_id.empty()) fields.push_back({"request_id", request_id});
  fields.push_back({"duration_ms", duration, true});
  fields.push_back({"received_bytes", received, true});
  fields.push_back({"sent_bytes", sent, true});
  fields.push_back({"peer", record.peer.view()});
  AppendLogLine(out, record.ended_unix_ms, LogLevel::kInfo, kLogger, "call", fields);
}

AccessLog::AccessLog(Clock& clock, size_t capacity) : clock_(clock), capacity_(capacity) {
  records_.reserve(capacity);
}

void AccessLog::Start() {
  thread_ = Thread("ps-access", [this] { Run(); });
}

void AccessLog::Stop() {
  {
    MutexLock lock(mu_);
    is_stopping_ = true;
  }
  changed_.NotifyAll();
  thread_.Join();
}

void AccessLog::Push(const AccessRecord& record) {
  bool was_empty = false;
  {
    MutexLock lock(mu_);
    was_empty = records_.empty();
    if (records_.size() >= capacity_) {
      dropped_ += 1;
    } else {
      records_.push_back(record);
    }
  }
  if (was_empty) changed_.NotifyAll();
}

uint64_t AccessLog::dropped() const {
  MutexLock lock(mu_);
  return dropped_;
}

void AccessLog::Run() noexcept {
  std::vector<AccessRecord> records;
  uint64_t told = 0;
  bool goes_on = true;
  while (goes_on) {
    try {
      records.reserve(capacity_);
      uint64_t dropped = 0;
      goes_on = TakeAll(&records, &dropped);
      Write(records, dropped - std::exchange(told, dropped));
    } catch (const std::exception& error) {  // no memory: these lines are lost, others follow
      Log(LogLevel::kError, kLogger, error.what());
    }
    records.clear();
  }
}

// Waits until there is something, and then a moment for what else comes. False: it is the last.
bool AccessLog::TakeAll(std::vector<AccessRecord>* records, uint64_t* dropped) {
  MutexLock lock(mu_);
  while (records_.empty() && !is_stopping_) changed_.Wait(mu_);
  const int64_t until_ns = clock_.NowNs() + kGatherNs;
  while (!is_stopping_ && records_.size() < capacity_ / 2 && clock_.NowNs() < until_ns) {
    clock_.WaitUntil(changed_, mu_, until_ns);
  }
  records_.swap(*records);
  *dropped = dropped_;
  return !is_stopping_;
}

void AccessLog::Write(const std::vector<AccessRecord>& records, uint64_t dropped) const {
  std::string lines;
  for (const AccessRecord& record : records) {
    AppendAccessLine(record, &lines);
    if (lines.size() < kMaxWriteBytes) continue;
    WriteLogLines(lines);
    lines.clear();
  }
  if (!lines.empty()) WriteLogLines(lines);
  if (dropped == 0) return;
  const std::string count = std::to_string(dropped);
  const LogField field{"dropped", count, true};
  Log(LogLevel::kWarning, kLogger,
      StrCat(dropped, " calls are not in the access log: they came faster than it is written"),
      {&field, 1});
}

}  // namespace penstock
