// Transport: gRPC over HTTP/2 on threads of its own.

#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "engine/engine.h"
#include "transport/call_handle.h"
#include "transport/io_thread.h"
#include "transport/options.h"
#include "transport/socket.h"
#include "transport/tls.h"

namespace penstock {

// ModelInfer and ModelStreamInfer go from bytes to bytes on the I/O threads; every other call is
// handed over by events. One thread takes connections and gives each to the one with the fewest.
//
// Threading: control calls on one thread at a time; events() and counters() on any.
// Ownership: owns the threads, and they the listening sockets; borrows the engine, which outlives it.
// Lifecycle: UseTls?, Listen+ -> Start -> ShareListeners?, CloseStreams?, Drain? -> Stop.
// Blocking: Stop, for requests that run.
class Transport {
 public:
  Transport(Engine& engine, TransportOptions options);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  // INVALID_ARGUMENT: a file that will not do.
  Status UseTls(TlsFiles files);
  // Takes connections from a listening socket, whose descriptor is duplicated.
  Status Listen(int fd);
  // Another process takes connections from the same sockets, or will: Drain leaves them as they are.
  // Otherwise it shuts them down, so that clients are refused whoever has a copy.
  void ShareListeners() { shares_listeners_ = true; }
  void Start();
  void SetLoaded() { shared_->has_loaded.store(true); }
  void CloseStreams();
  // Takes no new connections and tells clients to make new calls elsewhere.
  void Drain();
  // Ends what is left. False: a request still runs after `timeout_ns`; what it needs is left behind.
  // Idempotent.
  bool Stop(int64_t timeout_ns);

  CallEventQueue& events() { return shared_->events; }
  const TransportCounters& counters() const { return shared_->counters; }
  // Calls that the access log has no line of.
  uint64_t dropped_access_lines() const {
    return shared_->access_log != nullptr ? shared_->access_log->dropped() : 0;
  }

 private:
  bool Accept(int listener);
  void AcceptOne(Socket socket, const sockaddr_storage& address);
  void ShedOne(int listener);
  void LogShortage(std::string_view what);

  // Constant after Start.
  const std::shared_ptr<TransportShared> shared_;
  std::unique_ptr<TlsContext> tls_;
  std::vector<Socket> listeners_;  // until Start
  std::vector<std::unique_ptr<IoThread>> threads_;

  bool shares_listeners_ = false;

  // Only on the thread that takes connections.
  Socket spare_;  // given up for a moment when there are no more descriptors
  bool has_logged_shortage_ = false;
};

}  // namespace penstock
