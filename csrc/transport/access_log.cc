#include "transport/access_log.h"

#include <cstdio>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"

namespace penstock {
namespace {

constexpr const char* kLogger = "penstock.access";
constexpr size_t kMaxWriteBytes = 64 << 10;
constexpr size_t kMaxLineBytes = 4096;  // about, with every byte of a client's escaped

std::string Milliseconds(int64_t ns) {
  char text[32];
  snprintf(text, sizeof(text), "%.3f", static_cast<double>(ns) / 1e6);
  return text;
}

}  // namespace

void AppendAccessLine(const AccessRecord& record, std::string* out) {
  // A text may be cut in the middle of a character, and a client's may be anything: the log bears it.
  const std::string_view model = record.model.view();
  const std::string_view version = record.version.view();
  const std::string_view request_id = record.request_id.view();
  const std::string duration = Milliseconds(record.ended_ns - record.begun_ns);
  const std::string received = std::to_string(record.received_bytes);
  const std::string sent = std::to_string(record.sent_bytes);
  std::vector<LogField> fields = {{"method", record.method.view()},
                                  {"status", StatusCodeName(record.status)}};
  if (!model.empty()) fields.push_back({"model", model});
  if (!version.empty()) fields.push_back({"version", version});
  if (!request_id.empty()) fields.push_back({"request_id", request_id});
  fields.push_back({"duration_ms", duration, true});
  fields.push_back({"received_bytes", received, true});
  fields.push_back({"sent_bytes", sent, true});
  fields.push_back({"peer", record.peer.view()});
  AppendLogLine(out, {record.ended_unix_ms, LogLevel::kInfo, kLogger, "call", fields});
}

AccessLog::AccessLog(Clock& clock, size_t capacity) : clock_(clock), capacity_(capacity) {
  records_.reserve(capacity);  // for good: whoever pushes and takes needs no memory
  taken_.reserve(capacity);
  lines_.reserve(kMaxWriteBytes + kMaxLineBytes);
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

void AccessLog::Push(const AccessRecord& record) noexcept {
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
  for (bool goes_on = true; goes_on;) {
    goes_on = TakeAll();
    WriteAll();
    try {
      TellDropped();
    } catch (...) {  // no memory: it is told the next time
    }
  }
}

// Waits until there is something, and then a moment for what else comes. False: it is the last.
bool AccessLog::TakeAll() {
  MutexLock lock(mu_);
  while (records_.empty() && !is_stopping_) changed_.Wait(mu_);
  const int64_t until_ns = clock_.NowNs() + kGatherNs;
  while (!is_stopping_ && records_.size() < capacity_ / 2 && clock_.NowNs() < until_ns) {
    clock_.WaitUntil(changed_, mu_, until_ns);
  }
  records_.swap(taken_);
  return !is_stopping_;
}

void AccessLog::WriteAll() {
  for (const AccessRecord& record : taken_) {
    const size_t before = lines_.size();
    try {
      AppendAccessLine(record, &lines_);
    } catch (...) {  // no memory: this line is lost, others follow
      lines_.resize(before);
      CountDropped(1);
    }
    if (lines_.size() >= kMaxWriteBytes) Write();
  }
  Write();
  taken_.clear();
}

void AccessLog::Write() {
  CountDropped(WriteLogLines(lines_));
  lines_.clear();
}

void AccessLog::CountDropped(size_t count) {
  if (count == 0) return;
  MutexLock lock(mu_);
  dropped_ += count;
}

void AccessLog::TellDropped() {
  const uint64_t dropped = this->dropped();
  if (dropped == told_) return;
  const std::string count = std::to_string(dropped - told_);
  const LogField field{"dropped", count, true};
  std::string line;
  const std::string message =
      StrCat(count, " calls are not in the access log: they came faster than it is written");
  AppendLogLine(&line, {UnixTimeMs(), LogLevel::kWarning, kLogger, message, {&field, 1}});
  if (WriteLogLines(line) == 0) told_ = dropped;
}

}  // namespace penstock
