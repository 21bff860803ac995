// Peer: a gRPC server that does what a test says, right or wrong.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/thread.h"

namespace penstock::load {

// A message with its gRPC prefix.
std::string Framed(std::string_view message);

// What one request message is answered with.
struct Reply {
  enum class Act : uint8_t {
    kAnswer,
    kNever,   // nothing comes
    kReset,   // RST_STREAM
    kHangUp,  // the connection is closed
    kGoAway,  // the answer comes; the connection takes no further calls
  };
  std::string data = "";     // of DATA frames
  std::string status = "0";  // grpc-status; "" = none comes. On a stream, not "0" ends it
  std::string message = "";  // grpc-message
  std::string http_status = "200";
  Act act = Act::kAnswer;
};

// Listens on a free port of 127.0.0.1; unary calls are answered when they end, messages of streams
// as they come.
// Threading: the script is called on the peer's thread, one call at a time.
// Blocking: the destructor, until the thread has ended.
class Peer {
 public:
  using Script = std::function<Reply(std::string_view message)>;

  Peer(Script script, bool is_streaming = false);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  uint16_t port() const { return port_; }
  size_t accepted() const { return accepted_.load(); }

 private:
  class Client;

  void Run();

  const Script script_;
  const bool is_streaming_;
  int listener_;
  int stop_;
  uint16_t port_ = 0;
  std::atomic<size_t> accepted_{0};
  Thread thread_;
};

}  // namespace penstock::load
