// TransportHarness: one I/O thread turned by hand, an engine of fake models behind it, and HTTP/2
// clients in front of it, all in one thread: what happens when is up to the test.

#pragma once

#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine_harness.h"
#include "transport/io_thread.h"

namespace penstock {

inline constexpr const char* kInfer = "/inference.GRPCInferenceService/ModelInfer";
inline constexpr const char* kStreamInfer = "/inference.GRPCInferenceService/ModelStreamInfer";

// A gRPC message as it is framed.
inline std::string Framed(std::string_view message, bool is_compressed = false) {
  const auto size = static_cast<uint32_t>(message.size());
  std::string framed{static_cast<char>(is_compressed), static_cast<char>(size >> 24),
                     static_cast<char>(size >> 16), static_cast<char>(size >> 8),
                     static_cast<char>(size)};
  return framed.append(message);
}

// The messages of a response's body.
inline std::vector<std::string> Unframed(std::string_view body) {
  std::vector<std::string> messages;
  while (body.size() >= 5) {
    const auto byte = [&](size_t i) { return static_cast<uint8_t>(body[i]); };
    const size_t size =
        size_t{byte(1)} << 24 | size_t{byte(2)} << 16 | size_t{byte(3)} << 8 | byte(4);
    messages.emplace_back(body.substr(5, size));
    body.remove_prefix(std::min(body.size(), 5 + size));
  }
  EXPECT_TRUE(body.empty()) << "the body ends within a message";
  return messages;
}

// One client on one end of a socket pair.
class Http2Client {
 public:
  using Headers = std::vector<std::pair<std::string, std::string>>;

  struct Response {
    std::map<std::string, std::string> headers;  // and trailers, which have other names
    std::string body;
    bool is_closed = false;
    uint32_t error_code = 0;

    std::string operator[](const std::string& name) const {
      const auto found = headers.find(name);
      return found == headers.end() ? "" : found->second;
    }
    std::string status() const { return (*this)["grpc-status"]; }
    std::string message() const { return (*this)["grpc-message"]; }
  };

  explicit Http2Client(int fd, uint32_t window_bytes = 1 << 20) : socket_(fd) {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(
        callbacks,
        [](nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_size,
           const uint8_t* value, size_t value_size, uint8_t, void* self) {
          static_cast<Http2Client*>(self)->responses_[frame->hd.stream_id].headers.insert_or_assign(
              std::string(reinterpret_cast<const char*>(name), name_size),
              std::string(reinterpret_cast<const char*>(value), value_size));
          return 0;
        });
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
        callbacks, [](nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data,
                      size_t size, void* self) {
          auto& client = *static_cast<Http2Client*>(self);
          client.responses_[id].body.append(reinterpret_cast<const char*>(data), size);
          if (client.reads_) nghttp2_session_consume(session, id, size);
          return 0;
        });
    nghttp2_session_callbacks_set_on_stream_close_callback(
        callbacks, [](nghttp2_session*, int32_t id, uint32_t error_code, void* self) {
          Response& response = static_cast<Http2Client*>(self)->responses_[id];
          response.is_closed = true;
          response.error_code = error_code;
          return 0;
        });
    nghttp2_session_callbacks_set_on_frame_recv_callback(
        callbacks, [](nghttp2_session*, const nghttp2_frame* frame, void* self) {
          if (frame->hd.type == NGHTTP2_GOAWAY) {
            auto& client = *static_cast<Http2Client*>(self);
            client.goaways.push_back(frame->goaway.error_code);
          }
          return 0;
        });
    nghttp2_option* option = nullptr;
    nghttp2_option_new(&option);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_session_client_new2(&session_, callbacks, this, option);
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    const nghttp2_settings_entry window{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, window_bytes};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &window, 1);
  }
  ~Http2Client() { nghttp2_session_del(session_); }
  Http2Client(const Http2Client&) = delete;
  Http2Client& operator=(const Http2Client&) = delete;

  // Begins a call and sends `body`, which `ends` the client's side.
  int32_t Call(const std::string& path, std::string body, bool ends = true,
               const Headers& more = {}) {
    Headers headers = {{":method", "POST"},
                       {":scheme", "http"},
                       {":path", path},
                       {":authority", "test"},
                       {"content-type", "application/grpc"},
                       {"te", "trailers"}};
    headers.insert(headers.end(), more.begin(), more.end());
    return Request(headers, std::move(body), ends);
  }
  int32_t Request(const Headers& headers, std::string body, bool ends) {
    std::vector<nghttp2_nv> pairs;
    for (const auto& [name, value] : headers) {
      pairs.push_back({reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
                       reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(),
                       value.size(), NGHTTP2_NV_FLAG_NONE});
    }
    auto& upload = *uploads_.emplace_back(std::make_unique<Upload>(Upload{std::move(body), ends}));
    nghttp2_data_provider provider;
    provider.source.ptr = &upload;
    provider.read_callback = &Read;
    const int32_t id =
        nghttp2_submit_request(session_, nullptr, pairs.data(), pairs.size(), &provider, nullptr);
    by_id_[id] = &upload;
    return id;
  }
  // Sends more of a call.
  void Send(int32_t id, std::string_view body, bool ends = false) {
    by_id_[id]->left.append(body);
    by_id_[id]->ends = ends;
    nghttp2_session_resume_data(session_, id);
  }
  void Reset(int32_t id) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
  }
  void Ping() { nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr); }
  // Whether bytes of responses are given back to the server's window.
  void SetReads(bool reads) { reads_ = reads; }
  void Consume(int32_t id, size_t bytes) { nghttp2_session_consume(session_, id, bytes); }

  // Bytes both ways, without waiting. False: the server has closed the connection.
  bool Pump() {
    const uint8_t* data = nullptr;
    for (;;) {
      const ssize_t size = nghttp2_session_mem_send(session_, &data);
      if (size <= 0) break;
      out_.append(reinterpret_cast<const char*>(data), static_cast<size_t>(size));
    }
    const ssize_t sent = send(socket_.fd(), out_.data(), out_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) out_.erase(0, static_cast<size_t>(sent));
    std::string buffer(64 << 10, '\0');
    for (;;) {
      const ssize_t got = recv(socket_.fd(), buffer.data(), buffer.size(), MSG_DONTWAIT);
      if (got == 0) is_closed = true;
      if (got <= 0) return !is_closed;
      nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(buffer.data()),
                               static_cast<size_t>(got));
    }
  }
  void SendRaw(std::string_view bytes) {
    EXPECT_EQ(send(socket_.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  void Close() { socket_.Close(); }

  const Response& response(int32_t id) { return responses_[id]; }

  std::vector<uint32_t> goaways;  // their error codes
  bool is_closed = false;

 private:
  struct Upload {
    std::string left;
    bool ends;
  };

  static ssize_t Read(nghttp2_session*, int32_t, uint8_t* into, size_t size, uint32_t* flags,
                      nghttp2_data_source* source, void*) {
    auto& upload = *static_cast<Upload*>(source->ptr);
    const size_t part = std::min(size, upload.left.size());
    std::copy_n(upload.left.begin(), part, into);
    upload.left.erase(0, part);
    if (upload.left.empty() && upload.ends) *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (part == 0 && !upload.ends) return NGHTTP2_ERR_DEFERRED;
    return static_cast<ssize_t>(part);
  }

  Socket socket_;
  nghttp2_session* session_ = nullptr;
  std::string out_;
  bool reads_ = true;
  std::deque<std::unique_ptr<Upload>> uploads_;
  std::map<int32_t, Upload*> by_id_;
  std::map<int32_t, Response> responses_;
};

// A model that answers once `gate` is open.
inline FakeModelSpec::Execute EchoBehind(Gate& gate) {
  return [&gate](auto inputs, auto wanted, auto* outputs) {
    gate.Pass();
    return Echo(inputs, wanted, outputs);
  };
}

// An engine that lets nobody in whose token is not known to be good.
inline Engine::Options WithTokens() {
  Engine::Options options;
  options.access.needs_identity = options.access.has_tokens = true;
  return options;
}

class TransportHarness {
 public:
  explicit TransportHarness(const TransportOptions& options = {}, Engine::Options engine = {})
      : models(std::move(engine)),
        shared(std::make_shared<TransportShared>(models.engine, options)),
        io(std::make_unique<IoThread>(shared, 0)) {
    shared->has_loaded.store(true);
  }
  ~TransportHarness() {
    for (auto& client : clients_) client->Close();
    Until([&] { return shared->counters.open_connections.load() == 0; });
    Until([&] { return AreRequestsDone(); });
  }

  // `send_buffer_bytes` of the server's socket; 0 = as the system has it.
  Http2Client& Connect(uint32_t window_bytes = 1 << 20, int send_buffer_bytes = 0) {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    if (send_buffer_bytes != 0) {
      setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof send_buffer_bytes);
    }
    io->Adopt(Socket(ends[0]), "unix:", nullptr);
    return *clients_.emplace_back(std::make_unique<Http2Client>(ends[1], window_bytes));
  }

  // Turns the loop and pumps the clients until `is_so`; a test that waits in vain fails.
  void Until(const std::function<bool()>& is_so) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!is_so()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "waited in vain";
      Step();
    }
  }
  // The same, while no client reads or writes.
  void TurnUntil(const std::function<bool()>& is_so) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!is_so()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "waited in vain";
      io->Turn(1);
    }
  }
  void Step(int timeout_ms = 1) {
    for (auto& client : clients_) client->Pump();
    io->Turn(timeout_ms);
    for (auto& client : clients_) client->Pump();
    for (CallEvent& event : shared->events.Take()) events.push_back(std::move(event));
  }
  // As often as it takes for everything that is under way to arrive, without an event to wait for.
  void Settle() {
    for (int i = 0; i < 20; ++i) Step(0);
  }
  const Http2Client::Response& Await(Http2Client& client, int32_t id) {
    Until([&] { return client.response(id).is_closed; });
    return client.response(id);
  }
  // The next event of the Python lane.
  CallEvent NextEvent() {
    Until([&] { return !events.empty(); });
    if (events.empty()) return {};
    CallEvent event = std::move(events.front());
    events.pop_front();
    return event;
  }
  // Requests that ended with `code`, as the engine has counted them.
  uint64_t Completed(StatusCode code) const {
    const auto counts = models.engine.completed();
    const auto found = counts.find(code);
    return found == counts.end() ? 0 : found->second;
  }

  EngineHarness models;
  std::shared_ptr<TransportShared> shared;
  std::unique_ptr<IoThread> io;
  std::deque<CallEvent> events;

 private:
  bool AreRequestsDone() { return models.engine.admission().inflight() == 0; }

  std::deque<std::unique_ptr<Http2Client>> clients_;
};

// A request for IdentitySpec's model and what its answer holds: the row's bytes.
inline std::string RowRequest(const std::vector<float>& row, std::string_view model = "m") {
  return Framed(InferMessage(model).Row(row).bytes());
}

}  // namespace penstock
