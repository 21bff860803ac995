// WorkerMemory: a client's memory on a GPU, as the processes of device workers know it.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/mutex.h"
#include "memory/exported_memory.h"

namespace penstock {

class DeviceWorker;
class WorkerSession;

// Its number, which processes were told of it, and what instances there said. When the memory goes
// each of those processes closes it.
// Threading: thread-safe.
// Ownership: the memory's. Borrows nobody: workers, processes and connections may go before it.
// Blocking: the destructor, as DeviceWorker::Forget.
class WorkerMemory final : public ExportedMemory::Opened {
 public:
  static const WorkerMemory& Of(const ExportedMemory& memory);
  WorkerMemory();
  ~WorkerMemory() override;

  uint64_t id() const { return id_; }  // in every process
  // What the instance behind a connection said, whether it reaches the memory; nullopt: nothing yet.
  std::optional<bool> AnswerOf(const std::shared_ptr<const void>& connection) const EXCLUDES(mu_);
  void SetAnswer(const std::shared_ptr<const void>& connection, bool is_reached) const
      EXCLUDES(mu_);
  // The process ends, and was asked for the memory. True: it is the second; none is asked any more,
  // for AnswerOf says no from now on.
  bool CountEnd(const std::shared_ptr<WorkerSession>& process) const EXCLUDES(mu_);
  // The process is told of the memory from now on.
  void Tell(const std::shared_ptr<DeviceWorker>& worker,
            const std::shared_ptr<WorkerSession>& process) const EXCLUDES(mu_);

 private:
  struct Answer {
    std::weak_ptr<const void> connection;
    bool is_reached = false;
  };
  struct Told {
    std::weak_ptr<DeviceWorker> worker;
    std::weak_ptr<WorkerSession> process;
    bool has_ended = false;  // while it was asked
  };

  const uint64_t id_;

  mutable Mutex mu_;
  // Guarded by mu_. Of those that are gone no more than there are.
  mutable std::vector<Answer> answers_ GUARDED_BY(mu_);
  mutable std::vector<Told> told_ GUARDED_BY(mu_);
  mutable int ends_ GUARDED_BY(mu_) = 0;  // of processes, while they were asked
};

}  // namespace penstock
