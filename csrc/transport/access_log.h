// AccessLog: one line of the log for each call, written off the I/O threads.

#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/thread.h"

namespace penstock {

// A text of at most N bytes, without memory of its own; a longer one is cut.
template <size_t N>
class FixedText {
 public:
  void Set(std::string_view text) {
    size_ = text.size() < N ? text.size() : N;
    std::copy_n(text.data(), size_, data_.data());  // which may be null where it is empty
  }
  std::string_view view() const { return {data_.data(), size_}; }

 private:
  std::array<char, N> data_;  // up to size_
  size_t size_ = 0;
};

// What of a call is told: neither what it carried nor who sent it but for the address. Of a stream
// the first request names the model.
struct AccessRecord {
  int64_t begun_ns = 0;
  int64_t ended_ns = 0;
  int64_t ended_unix_ms = 0;
  uint64_t received_bytes = 0;  // of messages, as they were on the wire
  uint64_t sent_bytes = 0;
  StatusCode status = StatusCode::kCancelled;  // until it is known
  FixedText<128> method;                       // the path
  FixedText<96> model;
  FixedText<24> version;
  FixedText<96> request_id;
  FixedText<64> peer;
};

// Threading: Push and dropped() on any thread; Start and Stop are the owner's.
// Ownership: owns its thread and two buffers of `capacity` records.
// Lifecycle: made -> Start -> Push... -> Stop, which writes what there is. What is pushed to one
// that does not run waits, or is dropped. Without memory lines are lost and counted, and the thread
// goes on.
// Cost: a call copies its record under a lock that the writer holds for the length of a swap; one
// futex at most every kGatherNs wakes the writer.
class AccessLog {
 public:
  static constexpr size_t kCapacity = 8192;

  explicit AccessLog(Clock& clock, size_t capacity = kCapacity);
  ~AccessLog() { Stop(); }
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  void Start();
  void Stop() EXCLUDES(mu_);
  // Where the buffer is full the record is dropped and counted.
  void Push(const AccessRecord& record) noexcept EXCLUDES(mu_);
  // Calls without a line: the buffer, standard error or the memory was full.
  uint64_t dropped() const EXCLUDES(mu_);

 private:
  static constexpr int64_t kGatherNs = 50'000'000;

  void Run() noexcept EXCLUDES(mu_);
  bool TakeAll() EXCLUDES(mu_);
  void WriteAll() EXCLUDES(mu_);
  void Write() EXCLUDES(mu_);
  void TellDropped();
  void CountDropped(size_t count) EXCLUDES(mu_);

  // Constant after construction.
  Clock& clock_;
  const size_t capacity_;

  mutable Mutex mu_;
  CondVar changed_;
  // Guarded by mu_.
  std::vector<AccessRecord> records_ GUARDED_BY(mu_);
  uint64_t dropped_ GUARDED_BY(mu_) = 0;
  bool is_stopping_ GUARDED_BY(mu_) = false;

  // Only on the thread of the log, once it runs.
  std::vector<AccessRecord> taken_;
  std::string lines_;
  uint64_t told_ = 0;  // of `dropped_`

  Thread thread_;  // last: it uses everything above
};

// A record as a line of the log, appended; nothing where lines of level info are not written.
void AppendAccessLine(const AccessRecord& record, std::string* out);

}  // namespace penstock
