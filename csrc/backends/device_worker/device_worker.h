// DeviceWorker: the process that runs the models of one device, watched and started anew when it ends.
//
// What is to be there in it are parts: models, and instances of them. Each has a connection of its own
// to the process. Parts are made one at a time, in the order in which they were added; after a restart
// those that were there are made again. The process is there while there are parts, and for a little
// while after the last, for a load that comes next.
//
//   part: wanted -> being made -> ready      the process ends: ready -> wanted
//                              -> failed

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backends/device_worker/worker_part.h"
#include "base/clock.h"
#include "base/event_fd.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/thread.h"
#include "worker/line_relay.h"
#include "worker/restart_budget.h"
#include "worker/session.h"

namespace penstock {

struct DeviceWorkerOptions {
  std::string device;             // "GPU 0": for messages and the log
  std::optional<int64_t> number;  // of the device, as this process counts them, if that is known
  WorkerLaunch launch;
  RestartOptions restarts;
  LineRelayOptions lines;
  // For a process to close a client's memory, and to free a part: once all with a limit of its own
  // is over that it was asked for before.
  int64_t forget_limit_ns = int64_t{75} * 1'000'000'000;
  int64_t free_limit_ns = int64_t{10} * 1'000'000'000;
  int64_t ask_every_ns = 1'000'000'000;  // what models use, as they run batches
  // How long a process is there without parts. It holds the device's context, which is memory that
  // nobody else has: short.
  int64_t linger_ns = int64_t{3} * 1'000'000'000;
  // From a kill: until when loads wait for the end of the process, to be made in the next.
  int64_t end_limit_ns = int64_t{10} * 1'000'000'000;
};

class WorkerMemory;

// Threading: thread-safe.
// Ownership: owns its thread and, through it, the process: the destructor ends both.
// Lifecycle: Add -> Run... -> Remove of each part.
// Blocking: Add, while the part is made and those before it, each up to its limit, and before that for
// the end of a process that was killed, up to end_limit_ns; Run, for as long as
// the batch computes, up to its limit, and Reaches, where it asks, likewise; Remove, until the worker
// has freed the part, for seconds at most after what it was at; the destructor, for a killed process.
class DeviceWorker : public std::enable_shared_from_this<DeviceWorker> {
 public:
  explicit DeviceWorker(DeviceWorkerOptions options);
  ~DeviceWorker();
  DeviceWorker(const DeviceWorker&) = delete;
  DeviceWorker& operator=(const DeviceWorker&) = delete;

  const std::string& device() const { return options_.device; }
  std::optional<int64_t> number() const { return options_.number; }

  // Makes a part; not OK: it is not there, and need not be removed. The model's or instance's own
  // failure with its text and code; UNAVAILABLE where the process ended meanwhile, with how, or was
  // killed and does not end in time. A model also starts a worker again whose restart budget was spent.
  Result<std::shared_ptr<WorkerPart>> Add(WorkerPartOptions options) EXCLUDES(mu_);
  void Remove(const std::shared_ptr<WorkerPart>& part) EXCLUDES(mu_);

  // Whether Run would find it.
  bool is_ready(const WorkerPart& part) const EXCLUDES(mu_);
  // What a model uses of the device, as the worker said last; takes what it has said since, and asks
  // anew. The answer is not waited for: a new instance and Run now and then ask, too.
  std::vector<DeviceUse> device_use(WorkerPart& model) EXCLUDES(mu_);
  // How often the process was started again.
  uint64_t restarts() const { return restarts_.load(std::memory_order_relaxed); }

  // Runs a batch on an instance, whose inputs lie in `arena` or are copied into it, or where `parts`
  // say, as BackendInstance::ExecuteParts has it. UNAVAILABLE where it is not ready, or the process
  // ended meanwhile: with how.
  Result<WorkerAnswer> Run(WorkerPart& part, const WorkerBatch& batch, const BatchParts& parts,
                           SlabArena* arena) EXCLUDES(mu_);
  // Whether an instance copies from and to that memory itself. It is asked once, and once again by
  // each process that is started after it, until two have ended when they were asked; never where the
  // memory is on another device.
  bool Reaches(WorkerPart& part, const ExportedMemory& memory) EXCLUDES(mu_);
  // The memory of that number is no more: returns once the process has closed it, has ended, or is
  // left to end by itself. One that does not within the limit is killed, as one that hangs.
  void Forget(const std::shared_ptr<WorkerSession>& process, uint64_t memory) noexcept
      EXCLUDES(forget_mu_, mu_);

 private:
  using Part = WorkerPart;
  using Link = WorkerPart::Link;
  using State = WorkerPart::State;

  static constexpr const char* kDoesNotEnd = "was killed and does not end";
  static constexpr int64_t kCloseGraceNs = 700 * kNsPerMs;  // from a closed connection to the end

  static int64_t NowNs() { return Clock::System().NowNs(); }

  static bool IsWanted(const std::shared_ptr<Part>& part) { return part->state_ == State::kWanted; }

  // By an end of the process.
  static bool WasLost(const std::shared_ptr<Part>& part) {
    return part->was_ready_ && IsWanted(part);
  }

  // Nobody has had it yet.
  static bool IsFirstLoad(const std::shared_ptr<Part>& part) {
    return !part->was_ready_ && IsWanted(part);
  }

  // An instance that runs batches.
  static bool Serves(const std::shared_ptr<Part>& part) {
    return part->options_.model != nullptr && part->state_ == State::kReady;
  }

  // On the thread.
  void Watch() noexcept;
  bool AwaitWork() EXCLUDES(mu_);
  std::string LiveOnce(const std::shared_ptr<WorkerSession>& session);
  void TakeTurn(const std::shared_ptr<WorkerSession>& session, LineRelay* lines);
  void WaitForEvent(WorkerSession& session, bool is_flooded) const;
  std::shared_ptr<Part> TakeNext() EXCLUDES(mu_);
  void MakeNext(const std::shared_ptr<WorkerSession>& session) EXCLUDES(mu_);
  void EndIfIdle(const std::shared_ptr<WorkerSession>& session) REQUIRES(mu_);
  int64_t LeaveNs(const std::shared_ptr<WorkerSession>& session) const REQUIRES(mu_);
  bool BeginMaking(const std::shared_ptr<WorkerSession>& session) EXCLUDES(mu_);
  void EndForWant(const Status& status) EXCLUDES(mu_);
  bool LeaveIfLate(const std::shared_ptr<WorkerSession>& session) EXCLUDES(mu_);
  void AwaitOwnEnd(const std::string& late_how);
  void ReadReply() EXCLUDES(mu_);
  Status HandlePacket(const WorkerPacket& packet) EXCLUDES(mu_);
  Status HandleFailed(const WorkerPacket& packet) EXCLUDES(mu_);
  Status Describe(const WorkerPacket& packet) EXCLUDES(mu_);
  void EndMaking(State state, const Status& status) EXCLUDES(mu_);
  void EndSession(const std::string& how) EXCLUDES(mu_);
  void EndPart(Part& part, const std::string& how) REQUIRES(mu_);
  bool AfterEnd(const std::string& how) EXCLUDES(mu_);
  void GiveUp(const std::string& how) EXCLUDES(mu_);
  void WaitBeforeRestart(int64_t delay_ns);
  void WriteLog(LogLevel level, std::string_view text) const;
  std::string Say(std::string_view how) const;  // "the worker of GPU 0 <how>"

  // In device_use and Run, and where an instance is ready.
  void TryAskUses(Part& model) noexcept EXCLUDES(model.run_mu_, mu_);
  void AskUses(Part& model) REQUIRES(model.run_mu_) EXCLUDES(mu_);
  void Ask(Part& model, Link& link) REQUIRES(model.run_mu_);
  Status TakeUses(Part& model, Link& link) REQUIRES(model.run_mu_);
  Status TakeUse(Part& model, Link& link, const WorkerPacket& packet) REQUIRES(model.run_mu_);

  // In Forget. INVALID_ARGUMENT, DEADLINE_EXCEEDED: why the process is to end; UNAVAILABLE: it does.
  Status AwaitForgotten(const std::shared_ptr<WorkerSession>& process, uint64_t memory) const
      REQUIRES(forget_mu_) EXCLUDES(mu_);
  // The process may be late with what it was asked for then: something is under way there since
  // before, which has a limit. A driver that is about something else frees and closes nothing.
  bool IsHeldUp(const std::shared_ptr<WorkerSession>& process, int64_t asked_ns) const
      EXCLUDES(mu_);
  // The process has ended, or nothing hurries its end.
  bool IsOver(const std::shared_ptr<WorkerSession>& process) const EXCLUDES(mu_);

  // In Run and Reaches.
  struct NamedParts;
  // The memory's number there; 0: the instance does not reach it. It is asked where it was not yet.
  Result<uint64_t> AskReach(const Part& part, const std::shared_ptr<Link>& link,
                            const ExportedMemory& memory) REQUIRES(part.run_mu_);
  Status EndAsked(const Part& part, const Link& link, const WorkerMemory& memory,
                  const std::string& kill_how) EXCLUDES(mu_);
  Result<uint64_t> NameMemory(const Part& part, const std::shared_ptr<Link>& link,
                              const ExportedMemory& memory) REQUIRES(part.run_mu_);
  Result<NamedParts> NameParts(const Part& part, const std::shared_ptr<Link>& link,
                               const BatchParts& parts) REQUIRES(part.run_mu_);
  Result<std::shared_ptr<Link>> Current(const Part& part) const EXCLUDES(mu_);
  Status AwaitEnd(const Part& part, const Link& link, const std::string& kill_how) EXCLUDES(mu_);
  // False: it did not say in time that it has freed the part.
  bool AwaitFreed(const Link& link) const EXCLUDES(mu_);
  void Kill(const std::shared_ptr<WorkerSession>& session, const std::string& how) EXCLUDES(mu_);
  void KillLocked(const std::shared_ptr<WorkerSession>& session, const std::string& how)
      REQUIRES(mu_);
  // Nothing more goes to a process that is to end, however long that takes.
  void Leave(const std::shared_ptr<WorkerSession>& session) REQUIRES(mu_);
  void FailLoad(Part& part) REQUIRES(mu_);

  // Constant after construction.
  const DeviceWorkerOptions options_;
  const EventFd wake_;
  std::atomic<uint64_t> restarts_{0};

  Mutex forget_mu_;  // one question at a time over the process's own socket; before mu_

  mutable Mutex mu_;
  CondVar changed_;
  // Guarded by mu_.
  bool is_stopping_ GUARDED_BY(mu_) = false;
  std::vector<std::shared_ptr<Part>> parts_ GUARDED_BY(mu_);  // models before their instances
  uint64_t ids_ GUARDED_BY(mu_) = 0;
  std::shared_ptr<WorkerSession> session_ GUARDED_BY(mu_);  // null: no process
  int64_t killed_ns_ GUARDED_BY(mu_) = kNever;              // when session_ was
  std::shared_ptr<WorkerSession> left_ GUARDED_BY(mu_);     // session_, if it does not end
  std::string last_end_ GUARDED_BY(mu_) = "is being started";
  Status given_up_ GUARDED_BY(mu_);  // the budget is spent, and why; until it says, or a load
  std::optional<RestartBudget> budget_ GUARDED_BY(mu_);

  // Only on the thread.
  std::shared_ptr<Part> making_;  // null: nothing is being made
  std::shared_ptr<Link> link_;    // its link
  bool is_link_open_ = false;     // until its end was read
  int64_t limit_ns_;              // until when it must be ready, or the process have ended
  std::string late_how_;          // what to say of the process otherwise
  bool is_log_open_ = false;      // until its end was read
  bool is_worn_ = false;          // the last load has failed there, and may not in a new one
  int64_t idle_ns_ = kNever;      // until when it is there without parts
  bool is_restart_ = false;       // the next process is one
  int64_t retry_ns_ = kNever;     // until when nothing is made, after a shortage of this process's
  int64_t leave_ns_ = kNever;     // when a killed process is left, then when loads behind it fail

  Thread thread_;  // last: it uses everything above
};

}  // namespace penstock
