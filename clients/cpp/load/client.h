// Client: a fleet with a thread of its own, for callers that keep their own time (a test harness).

#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/event_fd.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/thread.h"
#include "load/fleet.h"

namespace penstock::load {

// A request as it is submitted; `tag` comes back with its completion.
struct ClientRequest {
  uint64_t tag = 0;
  std::string message;
};

struct ClientCompletion {
  uint64_t tag = 0;
  Outcome outcome = Outcome::kOk;
  std::string payload;     // the answer's message, or the text of a failure
  int64_t latency_ns = 0;  // from Submit to the answer
};

// Every request that was submitted completes exactly once.
//
// Threading: thread-safe.
// Ownership: owns thread and connections; requests are copied in, answers out.
// Lifecycle: Submit and Take until Close; what has no answer by then completes with kNoAnswer, and
// can still be taken. The destructor closes.
// Blocking: Start, as long as it takes to connect; Take; Close, until the thread has ended.
class Client final : private Fleet::Sink {
 public:
  static Result<std::unique_ptr<Client>> Start(FleetOptions options);
  ~Client() override;

  // FAILED_PRECONDITION once closed; then none was taken.
  Status Submit(std::vector<ClientRequest> requests);

  // All completions, as soon as there is one; none if nothing has come for `timeout_ns`, or if
  // nothing is under way any more and the client is closed.
  std::vector<ClientCompletion> Take(int64_t timeout_ns);

  // Requests that were submitted and not yet completed.
  size_t in_flight() const { return in_flight_.load(); }

  void Close();

 private:
  struct Pending {
    uint64_t tag = 0;
    int64_t submitted_ns = 0;
  };
  struct Submitted {
    ClientRequest request;
    int64_t submitted_ns = 0;
  };

  Client() = default;

  void Run() noexcept;
  void SendAll(std::deque<Submitted> submitted);
  void OnAnswer(uint64_t token, const Answer& answer) override;
  void Complete(const Pending& pending, Outcome outcome, std::string_view payload);
  void Publish();

  // Constant after Start.
  const EventFd wake_;
  std::unique_ptr<Fleet> fleet_;  // used by the thread alone

  // Only on the client's thread.
  std::vector<Pending> pending_;  // by token
  std::vector<uint64_t> free_;    // tokens
  std::vector<ClientCompletion> batch_;

  // Own synchronisation.
  std::atomic<size_t> in_flight_{0};

  Mutex mu_;
  CondVar changed_;
  // Guarded by mu_.
  std::deque<Submitted> submitted_ GUARDED_BY(mu_);
  std::vector<ClientCompletion> done_ GUARDED_BY(mu_);
  bool is_closing_ GUARDED_BY(mu_) = false;
  bool has_ended_ GUARDED_BY(mu_) = false;

  Mutex join_mu_;
  Thread thread_ GUARDED_BY(join_mu_);
};

}  // namespace penstock::load
