#include "peer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cassert>
#include <map>
#include <vector>

#include "load/message.h"

namespace penstock::load {
namespace {

nghttp2_nv Header(std::string_view name, std::string_view value) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          NGHTTP2_NV_FLAG_NONE};
}

}  // namespace

std::string Framed(std::string_view message) {
  const auto prefix = GrpcPrefix(message.size());
  return std::string(prefix.begin(), prefix.end()).append(message);
}

// One connection. Confined to the peer's thread.
class Peer::Client {
 public:
  Client(int fd, const Peer& peer) : fd_(fd), peer_(peer) {
    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &OnData);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, &OnFrame);
    nghttp2_session_server_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0);
  }
  ~Client() {
    nghttp2_session_del(session_);
    close(fd_);
  }

  int fd() const { return fd_; }

  // False when the connection is over.
  bool Serve() {
    std::array<uint8_t, 65536> buffer;
    const ssize_t size = recv(fd_, buffer.data(), buffer.size(), 0);
    if (size <= 0) return false;
    if (nghttp2_session_mem_recv(session_, buffer.data(), size) != size || hangs_up_) return false;
    const uint8_t* data = nullptr;
    for (ssize_t left; (left = nghttp2_session_mem_send(session_, &data)) > 0;) {
      while (left > 0) {  // the socket blocks: it takes all in the end
        const ssize_t sent = send(fd_, data, left, MSG_NOSIGNAL);
        if (sent <= 0) return false;
        data += sent;
        left -= sent;
      }
    }
    return nghttp2_session_want_read(session_) != 0;
  }

 private:
  struct Stream {
    MessageCutter received;
    std::string out;
    std::string status;  // once the call is to end
    std::string message;
    bool is_answered = false;
    bool is_over = false;
    bool is_deferred = false;
  };

  static int OnData(nghttp2_session*, uint8_t, int32_t id, const uint8_t* data, size_t size,
                    void* self) {
    auto& client = *static_cast<Client*>(self);
    client.streams_[id].received.Append(data, size);
    if (client.peer_.is_streaming_) client.TakeMessages(id);
    return 0;
  }

  static int OnFrame(nghttp2_session*, const nghttp2_frame* frame, void* self) {
    auto& client = *static_cast<Client*>(self);
    if (frame->hd.type == NGHTTP2_DATA && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
      client.TakeMessages(frame->hd.stream_id);
    }
    return 0;
  }

  void TakeMessages(int32_t id) {
    Stream& stream = streams_[id];
    while (const auto message = stream.received.Next()) Obey(id, peer_.script_(*message));
  }

  void Obey(int32_t id, const Reply& reply) {
    switch (reply.act) {
      case Reply::Act::kNever:
        return;
      case Reply::Act::kReset:
        nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_INTERNAL_ERROR);
        return;
      case Reply::Act::kHangUp:
        hangs_up_ = true;
        return;
      case Reply::Act::kGoAway:
        nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR, nullptr, 0);
        break;
      case Reply::Act::kAnswer:
        break;
    }
    Answer(id, reply);
  }

  void Answer(int32_t id, const Reply& reply) {
    Stream& stream = streams_[id];
    stream.out += reply.data;
    if (!peer_.is_streaming_ || reply.status != "0") {
      stream.is_over = true;
      stream.status = reply.status;
      stream.message = reply.message;
    }
    if (!stream.is_answered) {
      stream.is_answered = true;
      const std::array<nghttp2_nv, 2> headers = {Header(":status", reply.http_status),
                                                 Header("content-type", "application/grpc")};
      nghttp2_data_provider provider{};
      provider.source.ptr = &stream;
      provider.read_callback = &ReadOut;
      nghttp2_submit_response(session_, id, headers.data(), headers.size(), &provider);
    } else if (stream.is_deferred) {
      stream.is_deferred = false;
      nghttp2_session_resume_data(session_, id);
    }
  }

  static ssize_t ReadOut(nghttp2_session* session, int32_t id, uint8_t* buffer, size_t limit,
                         uint32_t* flags, nghttp2_data_source* source, void*) {
    auto& stream = *static_cast<Stream*>(source->ptr);
    const size_t size = stream.out.copy(reinterpret_cast<char*>(buffer), limit);
    stream.out.erase(0, size);
    if (!stream.out.empty()) return static_cast<ssize_t>(size);
    if (!stream.is_over && size == 0) {
      stream.is_deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    if (stream.is_over) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
      if (!stream.status.empty()) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        const std::array<nghttp2_nv, 2> trailers = {Header("grpc-status", stream.status),
                                                    Header("grpc-message", stream.message)};
        nghttp2_submit_trailer(session, id, trailers.data(), trailers.size());
      }
    }
    return static_cast<ssize_t>(size);
  }

  const int fd_;
  const Peer& peer_;
  nghttp2_session* session_ = nullptr;
  std::map<int32_t, Stream> streams_;
  bool hangs_up_ = false;
};

Peer::Peer(Script script, bool is_streaming)
    : script_(std::move(script)),
      is_streaming_(is_streaming),
      listener_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)),
      stop_(eventfd(0, EFD_CLOEXEC)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  [[maybe_unused]] const bool listens = bind(listener_, generic, size) == 0 &&
                                        listen(listener_, SOMAXCONN) == 0 &&
                                        getsockname(listener_, generic, &size) == 0;
  assert(listens);
  port_ = ntohs(address.sin_port);
  thread_ = Thread("peer", [this]() noexcept { Run(); });
}

Peer::~Peer() {
  eventfd_write(stop_, 1);
  thread_.Join();
  close(listener_);
  close(stop_);
}

void Peer::Run() {
  std::vector<std::unique_ptr<Client>> clients;
  while (true) {
    std::vector<pollfd> ready = {{stop_, POLLIN, 0}, {listener_, POLLIN, 0}};
    for (const auto& client : clients) ready.push_back({client->fd(), POLLIN, 0});
    poll(ready.data(), ready.size(), -1);
    if (ready[0].revents != 0) return;
    std::vector<std::unique_ptr<Client>> alive;
    for (size_t i = 0; i < clients.size(); ++i) {
      if (ready[i + 2].revents == 0 || clients[i]->Serve()) alive.push_back(std::move(clients[i]));
    }
    clients = std::move(alive);
    if (ready[1].revents == 0) continue;
    const int fd = accept(listener_, nullptr, nullptr);
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    clients.push_back(std::make_unique<Client>(fd, *this));
    ++accepted_;
  }
}

}  // namespace penstock::load
