// Worker: a process that runs a model's batches, watched and started anew when it ends.
//
// Its thread starts the process, reads what it prints, notices its end, and after a while that the
// restart budget allows starts the next one. Batches are sent and answers taken by whoever calls Run.

#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/event_fd.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/thread.h"
#include "worker/line_relay.h"
#include "worker/messages.h"
#include "worker/restart_budget.h"
#include "worker/session.h"
#include "worker/slab.h"

namespace penstock {

struct WorkerOptions {
  std::string label;     // "model 'm' version 1", for messages
  std::string log_name;  // before the lines that it prints, until it is activated
  std::string model;     // of its lines of the log, as fields
  std::string version;
  WorkerLaunch launch;
  // From a process's start to DESCRIBED, and from START to READY; 0 = no limit.
  int64_t load_limit_ns = int64_t{600} * 1'000'000'000;
  int64_t execution_limit_ns = int64_t{600} * 1'000'000'000;  // of one batch; 0 = no limit
  RestartOptions restarts;
  LineRelayOptions lines;
};

// What a look at the streams of a batch is told.
struct StreamsLook {
  bool is_executing = false;  // the model has not handed the batch back yet
  int64_t now_ns = 0;
  int64_t limit_ns = 0;  // the execution limit; 0 = none
};

// Takes what a decoupled model answers to the requests of a batch.
// Threading: called on the worker's thread, one call at a time, but for OnSent; must not block.
class WorkerStreams {
 public:
  virtual ~WorkerStreams() = default;
  // The batch was sent; called in RunStreams, maybe after the first of its answers.
  virtual void OnSent() = 0;
  // A response; a failed one has a code.
  virtual void OnResponse(uint32_t request, WorkerAnswer answer, bool is_last) = 0;
  // There is nothing more for a request.
  virtual void OnLast(uint32_t request) = 0;
  // There is nothing more for any request: the model refused the batch, or its worker has ended.
  virtual void OnEnd(const Status& status) = 0;
  // Called now and then while a request is not finished, or the batch is executed: whether the model
  // can go on, which it cannot while every client has yet to take what there is.
  virtual bool Look(const StreamsLook& look) = 0;
};

// Threading: thread-safe; one batch at a time runs, others wait for it.
// Ownership: owns its thread and, through it, the process: the destructor ends both.
// Lifecycle: Start -> Activate -> Run... Before Activate has succeeded a process that ends is not
// started again.
// Blocking: Start, Activate, for as long as the model takes to load, up to the load limit; Run, for
// as long as it computes, up to the execution limit; the destructor, for the end of a killed process.
class Worker {
 public:
  // Starts the process and waits until it has described the model. The model's own failure is
  // INVALID_ARGUMENT with its text, a process that ended UNAVAILABLE with how.
  static Result<std::unique_ptr<Worker>> Start(WorkerOptions options);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  const WorkerSignature& signature() const { return signature_; }  // after Start
  // Has the model made ready as the instance `name`. Fails as Start does.
  Status Activate(const std::string& name) EXCLUDES(mu_);
  // Whether Run would find a worker.
  bool is_ready() const EXCLUDES(mu_);
  // How often it was started again.
  uint64_t restarts() const { return restarts_.load(std::memory_order_relaxed); }
  // Whether it has ended for good.
  bool has_failed() const EXCLUDES(mu_);

  // Runs a batch whose inputs lie in `arena`, or are copied into it. One answer for the batch, or
  // one for each request. UNAVAILABLE where there is no worker, or it ended meanwhile: with how.
  Result<std::vector<WorkerAnswer>> Run(const WorkerBatch& batch, SlabArena* arena)
      EXCLUDES(run_mu_, mu_);

  // Of a decoupled model: hands a batch over; `streams` gets its answers, during this call and after
  // it. Returns once the worker has read the inputs. Not OK: `streams` gets nothing any more.
  // `batch_id` is set before `streams` gets anything.
  Status RunStreams(const WorkerBatch& batch, SlabArena* arena,
                    const std::shared_ptr<WorkerStreams>& streams, std::atomic<uint64_t>* batch_id)
      EXCLUDES(run_mu_, mu_);
  // Sends CREDIT or CANCEL. Never blocks; without effect once the request is finished.
  void Tell(WorkerPacketKind kind, uint64_t batch, uint32_t request, uint32_t value = 0)
      EXCLUDES(mu_);

 private:
  enum class Phase { kStarting, kDescribed, kActivating, kReady, kDown, kFailed };

  // A batch of a decoupled model.
  struct Streams {
    std::shared_ptr<WorkerStreams> sink;
    std::vector<bool> is_finished;  // by request
    bool is_taken = false;          // DONE has come
  };

  explicit Worker(WorkerOptions options);

  Status AwaitDescribed() EXCLUDES(mu_);

  // On the thread.
  void Watch() noexcept;
  std::string LiveOnce(const std::shared_ptr<WorkerSession>& session);
  void WaitForEvent(WorkerSession& session, bool is_flooded) const;
  void ReadPackets(WorkerSession& session);
  void TakeTurn(WorkerSession& session, LineRelay* lines);
  void ReadRest(WorkerSession& session, LineRelay* lines, const std::string& how);
  Status HandlePacket(WorkerSession& session, const WorkerPacket& packet);
  Status Describe(WorkerSession& session, const WorkerPacket& packet);
  void TakeStep(WorkerSession& session);
  void Stop(WorkerSession& session);
  bool AfterEnd(const std::string& how);
  Status EndedWhileLoading(const std::string& ended, std::string_view how) const;
  Status HandleStreamPacket(WorkerSession& session, const WorkerPacket& packet) EXCLUDES(mu_);
  Status HandleResponse(WorkerSession& session, const WorkerPacket& packet) EXCLUDES(mu_);
  Status HandleDone(WorkerSession& session, const WorkerPacket& packet) EXCLUDES(mu_);
  void LookAtStreams() EXCLUDES(mu_);
  void EndStreams(const std::string& how) EXCLUDES(mu_);
  bool SendPending(WorkerSession& session) EXCLUDES(mu_);
  bool reads_packets() const EXCLUDES(mu_);
  bool has_streams() const EXCLUDES(mu_);
  bool WaitBeforeRestart(int64_t delay_ns);
  void BeginSession(std::shared_ptr<WorkerSession> session) EXCLUDES(mu_);
  void SetPhase(Phase phase, Status status = Status()) EXCLUDES(mu_);
  Phase phase() const EXCLUDES(mu_);
  bool is_stopping() const EXCLUDES(mu_);
  std::string LogName() const EXCLUDES(mu_);
  std::string Say(std::string_view what) const;
  void WriteLog(LogLevel level, std::string_view text) const EXCLUDES(mu_);

  // In Run and RunStreams.
  Status Send(WorkerSession& session, const WorkerBatch& batch, SlabArena* arena) REQUIRES(run_mu_);
  Result<std::vector<WorkerAnswer>> Await(WorkerSession& session, size_t expected)
      REQUIRES(run_mu_);
  Result<std::shared_ptr<WorkerSession>> Current() const EXCLUDES(mu_);
  Status AwaitEnd(WorkerSession& session, const std::string& kill_how) EXCLUDES(mu_);

  // Constant after construction.
  const WorkerOptions options_;
  const EventFd wake_;
  std::atomic<uint64_t> restarts_{0};
  WorkerSignature signature_;  // constant after Start

  Mutex run_mu_;  // before mu_
  // Guarded by run_mu_.
  uint64_t batches_ GUARDED_BY(run_mu_) = 0;

  mutable Mutex mu_ ACQUIRED_AFTER(run_mu_);
  CondVar changed_;
  // Guarded by mu_.
  Phase phase_ GUARDED_BY(mu_) = Phase::kStarting;
  Status status_ GUARDED_BY(mu_);  // why it is down or failed
  bool is_stopping_ GUARDED_BY(mu_) = false;
  bool was_ready_ GUARDED_BY(mu_) = false;
  std::string instance_ GUARDED_BY(mu_);  // what to activate it as; empty = not yet
  std::shared_ptr<WorkerSession> session_ GUARDED_BY(mu_);  // null: no process
  std::string last_end_ GUARDED_BY(mu_);                    // how the last session ended
  std::map<uint64_t, Streams> streams_ GUARDED_BY(mu_);     // by batch: not finished
  std::deque<WorkerPacket> pending_ GUARDED_BY(mu_);        // for the thread to send

  // Only on the thread.
  RestartBudget budget_;
  int64_t limit_ns_ = kNever;    // until when the process must have got a step further
  std::string late_how_;         // what to say of it otherwise
  bool is_log_open_ = false;     // until its end was read
  bool is_socket_open_ = false;  // likewise
  Status failure_;               // what FAILED said
  std::string last_line_;        // that the last process printed
  bool has_changed_ = false;     // the model's file describes another model
  bool is_socket_full_ = false;
  int64_t silent_since_ns_ = 0;  // a decoupled model could go on, and has said nothing; 0 = not so

  Thread thread_;  // last: it uses everything above
};

}  // namespace penstock
