// IoThread: a thread, its connections, and the inference that they ask for.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/thread.h"
#include "batcher/completion_queue.h"
#include "engine/engine.h"
#include "transport/access_log.h"
#include "transport/call_handle.h"
#include "transport/connection.h"
#include "transport/mailbox.h"
#include "transport/options.h"
#include "transport/session_memory.h"
#include "transport/socket.h"
#include "transport/tls.h"

namespace penstock {

// What the I/O threads of one transport share.
struct TransportShared {
  TransportShared(Engine& engine, const TransportOptions& options)
      : engine(engine),
        options(options),
        budget(options.max_buffered_bytes, counters.buffered_bytes),
        access_log(options.access_log ? std::make_unique<AccessLog>(engine.clock()) : nullptr) {}

  Engine& engine;
  const TransportOptions options;
  TransportCounters counters;
  ByteBudget budget;
  CallEventQueue events;
  const std::unique_ptr<AccessLog> access_log;  // null: there is none
  std::atomic<bool> has_loaded{false};          // the models of the start
  std::atomic<uint64_t> serial{0};              // of the latest connection
  std::atomic<bool> is_closing{false};          // streams of inference take no more
};

// A turn: what is readable is read; what it brought is handed to the engine and, where a model is
// quick, run here as one batch; what is done is encoded; each connection writes once.
//
// Threading: Start, Stop and the atomics on any thread; everything else on its own.
// Ownership: owns its connections; shares what the threads of a transport have in common.
// Lifecycle: made -> Start -> Stop. Or, for tests, made and turned by hand: Turn.
// Blocking: Stop joins; it waits for batches that run.
class IoThread {
 public:
  IoThread(std::shared_ptr<TransportShared> shared, int index);
  ~IoThread();
  IoThread(const IoThread&) = delete;
  IoThread& operator=(const IoThread&) = delete;

  void Start();
  // Has the thread close every connection and wait for requests that still run, until
  // `deadline_ns`.
  void BeginStop(int64_t deadline_ns);
  // Joins. False: not before `deadline_ns` and a moment more, for a model runs on it that does not
  // end; or requests still run elsewhere. They use memory of this thread: it must not be destroyed.
  bool Stop(int64_t deadline_ns);

  // Takes a connection over, from another thread. `tls` null: plain text.
  void Adopt(Socket socket, std::string peer, std::unique_ptr<TlsSession> tls);
  // Watches a listening socket, until Drain closes it: `on_readable` is called on this thread. False
  // from it: nothing can be taken for now, and the socket rests for a moment.
  void WatchListener(Socket listener, std::function<bool(int fd)> on_readable);
  // Of all connections, from any thread.
  // `leaves_listeners`: they are closed here and not shut down, for another process has them too.
  void Drain(bool leaves_listeners = false);
  void CloseStreams();
  size_t load() const { return connection_count_.load(std::memory_order_relaxed); }

  // One turn, waiting at most `timeout_ms` for something to do (negative: until there is).
  void Turn(int timeout_ms);

  // For connections and calls.
  Engine& engine() const { return shared_->engine; }
  const TransportOptions& options() const { return shared_->options; }
  TransportCounters& counters() const { return shared_->counters; }
  ByteBudget& budget() const { return shared_->budget; }
  CallEventQueue& events() const { return shared_->events; }
  AccessLog* access_log() const { return shared_->access_log.get(); }
  uint64_t NextSerial() { return shared_->serial.fetch_add(1, std::memory_order_relaxed) + 1; }
  bool has_loaded() const { return shared_->has_loaded.load(std::memory_order_relaxed); }
  bool is_closing() const { return shared_->is_closing.load(std::memory_order_relaxed); }
  // Metadata of inference is looked at: somebody asks who calls, or which request it is.
  bool keeps_metadata() const { return has_access_policy_ || access_log() != nullptr; }
  const std::shared_ptr<Mailbox>& mailbox() const { return mailbox_; }
  SessionMemory& memory() { return memory_; }
  std::span<uint8_t> read_buffer() { return read_buffer_; }
  int64_t now_ns() const { return now_ns_; }
  // `ns` give or take a tenth; 0 stays 0.
  int64_t Jittered(int64_t ns);

  // Hands a request to the engine, with the other requests of this turn.
  void Infer(const ReplyRef& reply, const Caller* caller);
  void MarkDirty(Connection* connection);
  void ReadAgain(Connection* connection);
  void Watch(Connection& connection, uint32_t events);
  void SetTimer(int64_t when_ns) { timer_ns_ = std::min(timer_ns_, when_ns); }
  void OnConnectionClosed(Connection& connection);

 private:
  static constexpr size_t kReadBytes = 256 << 10;
  static constexpr int kMaxEvents = 256;

  struct Listener {
    Socket socket;
    std::function<bool(int fd)> on_readable;
    int64_t rests_until_ns = kNever;  // not watched until then; kNever = it is
  };

  template <typename Action>
  void Protect(Connection* connection, Action action);
  void Run() noexcept;
  void Add(Socket socket, std::string peer, std::unique_ptr<TlsSession> tls);
  int TimeoutMs(int asked_ms) const;
  void HandleEvents(int timeout_ms);
  void RunTasks();
  void RunInference();
  void TakeOutcomes();
  void OnOutcome(const RequestRef& ref);
  void Retry(const RequestRef& request);
  void AddUnflushed(const InferRequest& request);
  bool TakeResponses(InferRequest& request);
  void FlushConnections();
  void HandleEvent(void* source, uint32_t events);
  void Rest(Listener* listener);
  void WakeListeners();
  void RunTimers();
  void CountClosed();
  void DeleteClosed();
  void CloseConnections();
  void WaitForRequests(int64_t deadline_ns);

  // Constant after construction.
  const std::shared_ptr<TransportShared> shared_;
  const int index_;
  const bool has_access_policy_;
  const std::shared_ptr<Mailbox> mailbox_;
  const std::shared_ptr<CompletionQueue> completions_;  // also the engine's
  const Socket epoll_;

  // Own synchronisation.
  std::atomic<bool> is_stopping_{false};
  std::atomic<size_t> connection_count_{0};
  std::atomic<size_t> open_requests_{0};

  // Only on this thread.
  SessionMemory memory_;
  std::vector<uint8_t> read_buffer_;
  bool is_draining_ = false;
  int64_t now_ns_;
  int64_t timer_ns_ = kNever;
  std::minstd_rand random_;
  std::unordered_map<Connection*, std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<Connection*> dirty_;
  std::vector<Connection*> again_;
  std::vector<Connection*> closed_;
  std::vector<std::shared_ptr<ModelVersion>> unflushed_;
  std::vector<RequestRef> taken_;
  std::vector<ResponseBlock> blocks_;

  int64_t stop_deadline_ns_ = 0;  // set before is_stopping_

  Mutex end_mu_;
  CondVar ended_;
  // Guarded by end_mu_.
  bool is_running_ GUARDED_BY(end_mu_) = false;

  Thread thread_;  // last: it uses everything above
};

}  // namespace penstock
