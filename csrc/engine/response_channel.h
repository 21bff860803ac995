// ResponseChannel: the way of one request's responses from a backend that answers requests one by
// one to whoever sent it.
//
//   backend    --Send*, Finish-->  channel  --blocks, outcome-->  completion queue's consumer
//              <--room, cancelled--         <--Taken, OnCancelled--
//
// A model that is not decoupled gives one response, which becomes the request's outputs as those of
// a whole batch do. A decoupled model's responses are encoded as they are sent, one behind the
// other, into blocks that the consumer takes all at once: a burst of responses is one entry in the
// completion queue, one wake-up and one block.

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engine/infer_request.h"
#include "engine/output_cut.h"
#include "engine/statistics.h"
#include "engine/version_spec.h"

namespace penstock {

// Whole encoded ModelStreamInferResponses, each behind the five bytes that gRPC puts before a
// message, so that a transport may send a block as it is.
struct ResponseBlock {
  Buffer bytes;
  size_t size_bytes = 0;  // of `bytes`, from the first on
  size_t count = 0;       // responses
};

// The messages of a block, without what is before them.
std::vector<std::span<const uint8_t>> MessagesOf(const ResponseBlock& block);

// Threading: thread-safe, but for Open and Settle, which are the instance's.
// Ownership: shared by its request, the sender and blocks on their way to the client. Holds its
// request from Open until that is finished: a sender that is kept for ever keeps nothing but this.
// Lifecycle: Open -> Send* -> Finish, and once ExecuteRequests is over, Settle. What is not finished
// by then is kept, and completed by whoever finishes it.
// Blocking: Send, Finish and Fail wait for a Send of the same request on another thread.
class ResponseChannel {
 public:
  // Responses that may wait for a client: room() counts down from the first, and is 0 beyond the
  // second however few they are. Enough to keep a client busy while the model is told of its room,
  // and little enough for thousands of streams.
  static constexpr size_t kMaxUntaken = 64;
  static constexpr size_t kMaxUntakenBytes = 4 << 20;
  // A model that sends without room fails its request at this multiple of either.
  static constexpr size_t kOverrun = 4;

  // What becomes of the responses.
  enum class Use {
    kOutputs,  // the only one's are the request's outputs
    kBlocks,   // they are encoded and taken by the completion queue's consumer
    kNone,     // they are checked and dropped: a warm-up
  };

  ResponseChannel(std::shared_ptr<const VersionSpec> spec, Use use)
      : spec_(std::move(spec)), use_(use) {}

  // The instance's thread, before and after ExecuteRequests. Settle returns the outcome where there
  // is one, for the caller to complete the request with; else the request is kept.
  static std::shared_ptr<ResponseSender> Open(const std::shared_ptr<ResponseChannel>& self,
                                              const RequestRef& request);
  std::optional<Status> Settle(const BatchTimes& times);

  // The backend, see ResponseSender.
  Status Send(std::vector<BatchOutput> outputs, bool is_last = false) EXCLUDES(send_mu_, mu_);
  void Finish(const Status& status) EXCLUDES(send_mu_, mu_);
  bool is_cancelled() const { return is_cancelled_.load() || is_finished(); }
  bool is_finished() const { return is_finished_.load(); }
  size_t room() const;
  void NotifyRoom(std::function<void()> on_room) EXCLUDES(mu_);
  void NotifyCancelled(std::function<void()> on_cancelled) EXCLUDES(mu_);

  // Ends the request for a reason that is not the model's, which is told as if the client had gone.
  void Fail(const Status& status) EXCLUDES(send_mu_, mu_);
  // The caller has gone: the model is told, and is to finish.
  void OnCancelled() noexcept EXCLUDES(mu_);

  // Use::kBlocks. The request has its outcome: tells its completion queue, in OnDone's place.
  void PushDone(InferRequest& request) EXCLUDES(mu_);
  // The consumer has found the request in its completion queue: appends what has been sent since it
  // was there last. True: the request is done, and is not found there again.
  bool Take(std::vector<ResponseBlock>* blocks) EXCLUDES(mu_);
  // The client's transport took responses of a block: there is room for as many.
  void Taken(size_t count, size_t size_bytes) EXCLUDES(mu_);

  // Waits for the outcome; nullopt: none by `deadline_ns`.
  // Blocking: yes.
  std::optional<Status> WaitFinished(Clock& clock, int64_t deadline_ns) EXCLUDES(send_mu_);

  const VersionSpec& spec() const { return *spec_; }

 private:
  // A first block is small: most often it carries few.
  static constexpr size_t kFirstBlockBytes = 1 << 10;
  static constexpr size_t kBlockBytes = 16 << 10;

  enum class Phase { kNew, kExecuting, kKept, kSettled };
  enum class By { kModel, kEngine };

  void End(const Status& status, By by) EXCLUDES(send_mu_, mu_);
  Status Deliver(std::vector<BatchOutput> outputs, bool is_last) REQUIRES(send_mu_);
  Status CutAll(const InferRequest& request, const std::vector<BatchOutput>& outputs,
                const CutOutputs& to) REQUIRES(send_mu_);
  Status KeepOutputs(InferRequest& request, std::vector<BatchOutput> outputs) REQUIRES(send_mu_);
  Status Encode(InferRequest& request, bool is_last) REQUIRES(send_mu_);
  bool Append(const InferResponseView& response, size_t size_bytes) EXCLUDES(mu_);
  bool IsOverrun() const;
  void TellRoom() noexcept EXCLUDES(mu_);
  void TellCancelled() noexcept EXCLUDES(mu_);
  void DropCallbacks() EXCLUDES(mu_);
  void Call(const std::function<void()>& told) const noexcept;

  // Constant after construction.
  const std::shared_ptr<const VersionSpec> spec_;
  const Use use_;

  // Own synchronisation.
  std::atomic<size_t> untaken_{0};
  std::atomic<size_t> untaken_bytes_{0};
  std::atomic<bool> is_cancelled_{false};
  std::atomic<bool> is_finished_{false};

  // Held while a response is checked, written to shared memory and encoded. Before mu_.
  Mutex send_mu_;
  CondVar finished_;
  // Guarded by send_mu_.
  Phase phase_ GUARDED_BY(send_mu_) = Phase::kNew;
  RequestRef request_ GUARDED_BY(send_mu_);
  size_t sent_ GUARDED_BY(send_mu_) = 0;
  bool has_last_ GUARDED_BY(send_mu_) = false;  // a response that is the last has been sent
  Status outcome_ GUARDED_BY(send_mu_);
  BatchTimes times_ GUARDED_BY(send_mu_);
  OutputCut cut_ GUARDED_BY(send_mu_);  // scratch, as the next two
  std::vector<TensorView> views_ GUARDED_BY(send_mu_);
  std::vector<Buffer> owned_ GUARDED_BY(send_mu_);

  Mutex mu_;
  // Guarded by mu_.
  std::vector<ResponseBlock> blocks_ GUARDED_BY(mu_);
  bool is_pushed_ GUARDED_BY(mu_) = false;  // in the completion queue, and not yet found there
  bool is_done_ GUARDED_BY(mu_) = false;
  std::function<void()> on_room_ GUARDED_BY(mu_);
  std::function<void()> on_cancelled_ GUARDED_BY(mu_);
};

}  // namespace penstock
