#include "worker/session.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <span>

namespace penstock {
namespace {

constexpr size_t kLogReadBytes = 64 << 10;
constexpr int kLogReadsAtOnce = 16;

}  // namespace

Result<std::shared_ptr<WorkerSession>> WorkerSession::Start(const WorkerLaunch& launch) {
  PENSTOCK_ASSIGN_OR_RETURN(auto process, WorkerProcess::Spawn(launch));
  // Not make_shared: the constructor is private.
  return std::shared_ptr<WorkerSession>(new WorkerSession(std::move(process)));
}

bool WorkerSession::ReadLog(LineRelay* lines, int64_t now_ns) {
  std::array<char, kLogReadBytes> chunk;
  for (int i = 0; i < kLogReadsAtOnce; ++i) {
    const ssize_t size = read(process_->log_fd(), chunk.data(), chunk.size());
    if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) return false;
    if (size < 0) return true;
    lines->Append(std::span<const char>(chunk).first(static_cast<size_t>(size)), now_ns);
  }
  return true;
}

void WorkerSession::Kill(const std::string& how) {
  MutexLock lock(mu_);
  if (has_ended_ || !killed_how_.empty()) return;
  killed_how_ = how;
  process_->Kill();
}

std::optional<std::string> WorkerSession::End() {
  MutexLock lock(mu_);
  std::optional<std::string> how = process_->ReapIfEnded();
  if (!how) return std::nullopt;
  has_ended_ = true;
  return killed_how_.empty() ? how : killed_how_;
}

}  // namespace penstock
