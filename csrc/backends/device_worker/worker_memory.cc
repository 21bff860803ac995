#include "backends/device_worker/worker_memory.h"

#include <algorithm>
#include <atomic>

#include "backends/device_worker/device_worker.h"

namespace penstock {
namespace {

constexpr int kMostEnds = 2;  // of processes, by questions about one memory

// By who owns them: an address may be another's later.
template <typename A, typename B>
bool IsSame(const std::weak_ptr<A>& a, const std::shared_ptr<B>& b) {
  return !a.owner_before(b) && !b.owner_before(a);
}

uint64_t NextId() {
  static std::atomic<uint64_t> last{0};
  return ++last;
}

}  // namespace

const WorkerMemory& WorkerMemory::Of(const ExportedMemory& memory) {
  // One for all workers, and one that outlives every memory, which no worker does.
  static constexpr char kOpener = 0;
  return static_cast<const WorkerMemory&>(
      *memory.OpenedBy(&kOpener, [] { return std::make_unique<WorkerMemory>(); }));
}

WorkerMemory::WorkerMemory() : id_(NextId()) {}

WorkerMemory::~WorkerMemory() {
  MutexLock lock(mu_);
  for (const Told& told : told_) {
    // A worker that is gone has ended its process.
    const auto worker = told.worker.lock();
    const auto process = told.process.lock();
    if (worker != nullptr && process != nullptr) worker->Forget(process, id_);
  }
}

std::optional<bool> WorkerMemory::AnswerOf(const std::shared_ptr<const void>& connection) const {
  MutexLock lock(mu_);
  for (const Answer& answer : answers_) {
    if (IsSame(answer.connection, connection)) return answer.is_reached;
  }
  return ends_ < kMostEnds ? std::nullopt : std::optional(false);
}

void WorkerMemory::SetAnswer(const std::shared_ptr<const void>& connection, bool is_reached) const {
  MutexLock lock(mu_);
  std::erase_if(answers_, [](const Answer& each) { return each.connection.expired(); });
  answers_.push_back({connection, is_reached});
}

bool WorkerMemory::CountEnd(const std::shared_ptr<WorkerSession>& process) const {
  MutexLock lock(mu_);
  for (Told& told : told_) {
    if (!IsSame(told.process, process) || told.has_ended) continue;
    told.has_ended = true;
    return ++ends_ == kMostEnds;
  }
  return false;
}

void WorkerMemory::Tell(const std::shared_ptr<DeviceWorker>& worker,
                        const std::shared_ptr<WorkerSession>& process) const {
  MutexLock lock(mu_);
  std::erase_if(told_, [](const Told& each) { return each.process.expired(); });
  const auto is_told = [&](const Told& each) { return IsSame(each.process, process); };
  if (std::none_of(told_.begin(), told_.end(), is_told)) told_.push_back({worker, process});
}

}  // namespace penstock
