// StreamBatch: the requests of a batch of a decoupled model, between their senders and the worker.

#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "base/mutex.h"
#include "worker/worker.h"

namespace penstock::python {

// A worker that may be gone: whoever holds a batch's senders may outlive it.
// Threading: thread-safe. Ownership: borrows the worker, until Drop.
class WorkerLink {
 public:
  explicit WorkerLink(Worker* worker) : worker_(worker) {}
  void Tell(WorkerPacketKind kind, uint64_t batch, uint32_t request, uint32_t value);
  // The worker is about to go.
  void Drop();

 private:
  Mutex mu_;  // before the worker's
  Worker* worker_ GUARDED_BY(mu_);
};

// A worker and the link to it, which ends with it.
// Threading: thread-safe. Ownership: owns the worker.
class LinkedWorker {
 public:
  explicit LinkedWorker(std::unique_ptr<Worker> worker)
      : worker_(std::move(worker)), link_(std::make_shared<WorkerLink>(worker_.get())) {}
  ~LinkedWorker() { link_->Drop(); }
  LinkedWorker(const LinkedWorker&) = delete;
  LinkedWorker& operator=(const LinkedWorker&) = delete;

  Worker& worker() const { return *worker_; }
  const std::shared_ptr<WorkerLink>& link() const { return link_; }

 private:
  const std::unique_ptr<Worker> worker_;
  const std::shared_ptr<WorkerLink> link_;
};

// Gives the worker as much credit as the senders have room, and the senders what it answers.
// Threading: thread-safe.
// Ownership: shared by the worker, as long as requests are not finished, and the senders' callbacks.
class StreamBatch final : public WorkerStreams, public std::enable_shared_from_this<StreamBatch> {
 public:
  // Credit that a worker has at most: beyond that it may be told again.
  static constexpr size_t kMaxCredit = 64;

  StreamBatch(std::string label, std::shared_ptr<WorkerLink> link,
              std::span<const BatchRequest> requests);

  // The credit that `request` begins with, for RUN.
  uint32_t FirstRoom(uint32_t request);
  // Where the worker's number of this batch goes.
  std::atomic<uint64_t>* id() { return &id_; }

  // Watches the senders: for room, and whether their clients go.
  void OnSent() override;
  void OnResponse(uint32_t request, WorkerAnswer answer, bool is_last) override;
  void OnLast(uint32_t request) override;
  void OnEnd(const Status& status) override;
  bool Look(const StreamsLook& look) override;

 private:
  struct Stream {
    std::shared_ptr<ResponseSender> sender;
    size_t credit = 0;       // what the worker may still send
    int64_t stalled_ns = 0;  // since when it waits for the client, which holds up execute; 0 = not
    bool awaits_room = false;   // NotifyRoom was called
    bool is_cancelled = false;  // the worker was told
    bool is_finished = false;
  };

  void Refill(uint32_t request) EXCLUDES(mu_);
  void OnRoom(uint32_t request) EXCLUDES(mu_);
  void Cancel(uint32_t request) EXCLUDES(mu_);
  void GiveUp(uint32_t request, int64_t limit_ns) EXCLUDES(mu_);
  void Finish(uint32_t request, const Status& status) EXCLUDES(mu_);
  bool TakeCredit(uint32_t request) EXCLUDES(mu_);

  // Constant after construction; the senders synchronise themselves.
  const std::string label_;
  const std::shared_ptr<WorkerLink> link_;

  const uint32_t count_;

  // Own synchronisation.
  std::atomic<uint64_t> id_{0};

  Mutex mu_;  // a leaf: no sender is called under it
  std::vector<Stream> streams_ GUARDED_BY(mu_);
};

}  // namespace penstock::python
