// Any bytes as what a client sends on a connection of the native transport, which is turned by hand.
//
//   input = how bytes      how: bit 0: the preface and empty settings go before the bytes
//                               bit 1: the client reads nothing
//                               bit 2: the client hangs up at the end, else it says that it ends
//                               bits 3-7: how many bytes come at a time, 0 = all
//
// The sanitizers judge; beyond that, whatever comes, the connection ends with its client, and then
// no call, no byte and no request of it is left.

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "engine/engine.h"
#include "testing/fake_backend.h"
#include "transport/io_thread.h"

namespace penstock {
namespace {

constexpr std::string_view kGreeting("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33);
constexpr int kMaxTurns = 100'000;

void Require(bool condition) {
  if (!condition) std::abort();
}

// Model "m": IN FP32 [-1] -> OUT, the same, in batches of up to 8.
void Serve(Engine* engine) {
  const Shape file_dims = {-1, -1};
  FakeModelSpec fake;
  fake.signature = {{{"IN", DataType::kFp32, file_dims}}, {{"OUT", DataType::kFp32, file_dims}}};
  fake.execute = &Echo;
  fake.runs_on_any_thread = true;
  VersionSpec spec;
  spec.model_name = std::string("m");  // gcc 12 warns of an assignment of one character
  spec.version = 1;
  spec.inputs = {{.name = "IN", .dtype = DataType::kFp32, .dims = {-1}, .reshape = {}}};
  spec.outputs = {
      {.name = "OUT", .dtype = DataType::kFp32, .dims = {-1}, .reshape = {}, .labels = {}}};
  spec.max_batch_size = 8;
  auto version =
      engine->CreateVersion(std::make_shared<FakeModel>(std::move(fake)), std::move(spec));
  Require(version.ok());
  engine->Start(*version);
  engine->SetServing("m", {*version}, {});
}

Engine& SharedEngine() {
  static Engine* const engine = [] {
    auto* made = new Engine(Engine::Options{});  // the fuzzer ends without static destructors
    Serve(made);
    return made;
  }();
  return *engine;
}

TransportOptions Options() {
  TransportOptions options;
  options.max_message_bytes = 64 << 10;
  options.max_concurrent_streams = 16;
  options.max_inflight_per_stream = 4;
  options.response_compression_level = 1;
  return options;
}

// The server's side, its Python lane included: there every call echoes what it gets.
class Server {
 public:
  Server()
      : shared_(std::make_shared<TransportShared>(SharedEngine(), Options())), io_(shared_, 0) {
    shared_->has_loaded.store(true);
  }

  // Once the client has gone nothing of it may be left.
  void Settle() {
    for (int i = 0; !IsOver(); ++i) {
      Require(i < kMaxTurns);
      Turn(1);
    }
    const TransportCounters& counters = shared_->counters;
    Require(counters.active_calls.load() == 0);
    Require(counters.buffered_bytes.load() == 0);
  }

  void Adopt(int fd) { io_.Adopt(Socket(fd), "unix:", nullptr); }
  bool has_connection() const { return shared_->counters.open_connections.load() != 0; }

  void Turn(int timeout_ms) {
    io_.Turn(timeout_ms);
    for (CallEvent& event : shared_->events.Take()) Answer(event);
  }

 private:
  bool IsOver() const { return !has_connection() && SharedEngine().admission().inflight() == 0; }

  static void Answer(CallEvent& event) {
    CallHandle& call = *event.call;
    switch (event.kind) {
      case CallEvent::Kind::kStarted:
        call.SendMetadata(call.facts().metadata);
        call.Read();
        return;
      case CallEvent::Kind::kMessage: {
        const std::span<const uint8_t> message = event.message.span();
        Buffer echo = HostPool::Shared().Allocate(message.size());
        if (!message.empty()) std::memcpy(echo.data(), message.data(), message.size());
        call.Write(std::move(echo));
        return;
      }
      case CallEvent::Kind::kWritten:
        call.Read();
        return;
      case CallEvent::Kind::kHalfClosed:
        call.End(NotFound(call.facts().path), call.facts().metadata);
        return;
      case CallEvent::Kind::kVerify:
        call.Verified(Status::Ok());
        return;
      case CallEvent::Kind::kClosed:
        return;
    }
  }

  const std::shared_ptr<TransportShared> shared_;
  IoThread io_;
};

// One for all inputs: a thread of the engine may touch it still when a request is over.
Server& SharedServer() {
  static auto* const server = new Server;  // the fuzzer ends without static destructors
  return *server;
}

class Client {
 public:
  Client(Server& server, bool reads) : server_(server), reads_(reads) {
    std::array<int, 2> ends{};
    Require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) == 0);
    server.Adopt(ends[0]);
    fd_ = ends[1];
  }
  ~Client() { close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Until all is sent, or the server has hung up, or takes nothing more because nothing is read.
  void Send(std::string_view bytes, size_t at_a_time) {
    for (int idle = 0; !bytes.empty() && idle < 3; ++idle) {
      const size_t size = std::min(at_a_time, bytes.size());
      const ssize_t sent = send(fd_, bytes.data(), size, MSG_NOSIGNAL);
      if (sent > 0) {
        bytes.remove_prefix(static_cast<size_t>(sent));
        idle = -1;
      }
      Turn();
      if (!server_.has_connection()) return;
    }
  }
  void Turn() {
    server_.Turn(0);
    std::array<char, 4096> dropped;
    while (reads_ && recv(fd_, dropped.data(), dropped.size(), 0) > 0) {
    }
  }
  void EndSending() { shutdown(fd_, SHUT_WR); }

 private:
  Server& server_;
  const bool reads_;
  int fd_ = -1;
};

}  // namespace
}  // namespace penstock

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;  // NOLINT: the entry's name is fixed, and so is its scope
  if (size == 0) return 0;
  const unsigned how = data[0];
  const size_t at_a_time = how >> 3U == 0 ? SIZE_MAX : how >> 3U;
  Server& server = SharedServer();
  {
    Client client(server, (how & 2U) == 0);
    client.Turn();
    if ((how & 1U) != 0) client.Send(kGreeting, SIZE_MAX);
    client.Send({reinterpret_cast<const char*>(data) + 1, size - 1}, at_a_time);
    if ((how & 4U) == 0) client.EndSending();
    for (int i = 0; i < 3; ++i) client.Turn();
  }
  server.Settle();
  return 0;
}
