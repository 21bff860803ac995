// A bare HTTP/2 echo: what nghttp2, the kernel and one thread can do, the ceiling that the native
// transport is measured against. It knows of gRPC only what a client needs to be content:
// content-type application/grpc and a trailer grpc-status 0. Each request is answered with its own
// body once it has ended.
//
// It does what a good server would and nothing else: one recv and one sendmsg per connection and
// turn of the loop, TCP_NODELAY, large flow-control windows, a body is copied once (out of the
// receive buffer) and sent from where it lies, streams and their memory are used again.
//
// Run: http2_echo [--port N] [--threads N]. Says "echo is ready: 127.0.0.1:PORT" on standard error
// and serves until it is killed. With several threads the first one accepts and hands connections
// out in turn.

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "load/output.h"

namespace {

constexpr size_t kReceiveBytes = 256 << 10;
constexpr size_t kBorrowBytes = 4096;   // payloads from here on are sent from where they lie
constexpr size_t kGrpcPrefixBytes = 5;  // flag, 4 bytes of length: says how long the body will be
constexpr size_t kMostReserved = 64 << 20;  // what is believed of such a length
constexpr int32_t kWindowBytes = 1 << 30;   // of streams and of connections
constexpr uint32_t kConcurrentStreams = 1024;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "http2_echo: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

// Bytes that grow without being zeroed, and keep their memory when they are emptied.
class Body {
 public:
  void Append(const uint8_t* data, size_t size) {
    if (size_ + size > capacity_) Reserve(std::max(size_ + size, Foretold(data, size)));
    std::memcpy(bytes_.get() + size_, data, size);
    size_ += size;
  }
  void Clear() { size_ = sent_ = 0; }

  // What was not yet handed out, at most `limit` bytes of it; and whether that was the last.
  size_t Left(size_t limit) const { return std::min(limit, size_ - sent_); }
  bool EndsAfter(size_t length) const { return sent_ + length == size_; }
  const uint8_t* HandOut(size_t length) {
    const uint8_t* data = bytes_.get() + sent_;
    sent_ += length;
    return data;
  }

 private:
  size_t Foretold(const uint8_t* data, size_t size) const {
    if (size_ > 0 || size < kGrpcPrefixBytes) return 2 * capacity_;
    uint32_t length = 0;
    std::memcpy(&length, data + 1, sizeof(length));
    return std::min(kMostReserved, kGrpcPrefixBytes + ntohl(length));
  }

  void Reserve(size_t capacity) {
    auto grown = std::make_unique_for_overwrite<uint8_t[]>(capacity);
    if (size_ > 0) std::memcpy(grown.get(), bytes_.get(), size_);
    bytes_ = std::move(grown);
    capacity_ = capacity;
  }

  std::unique_ptr<uint8_t[]> bytes_;
  size_t capacity_ = 0;
  size_t size_ = 0;
  size_t sent_ = 0;
};

nghttp2_nv Header(std::string_view name, std::string_view value) {
  constexpr uint8_t kFlags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          kFlags};
}

// One client. Confined to the thread whose epoll it is in.
class Connection {
 public:
  explicit Connection(int fd) : fd_(fd) {
    nghttp2_session_callbacks* callbacks = Callbacks();
    nghttp2_option* option = nullptr;
    if (nghttp2_option_new(&option) != 0) Die("nghttp2_option_new");
    nghttp2_option_set_no_closed_streams(option, 1);
    if (nghttp2_session_server_new2(&session_, callbacks, this, option) != 0)
      Die("nghttp2_session_server_new2");
    nghttp2_option_del(option);
    const std::array<nghttp2_settings_entry, 3> settings = {{
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, kConcurrentStreams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kWindowBytes},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    }};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kWindowBytes);
  }
  ~Connection() {
    nghttp2_session_del(session_);
    close(fd_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  int fd() const { return fd_; }
  bool wants_to_write() const { return !output_.IsDrained(); }

  // Reads what is there and answers it. False when the connection is over.
  bool Read(std::vector<uint8_t>& buffer) {
    const ssize_t size = recv(fd_, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (size == 0) return false;
    if (size < 0) return errno == EAGAIN || errno == EINTR;
    return nghttp2_session_mem_recv(session_, buffer.data(), static_cast<size_t>(size)) == size &&
           Write();
  }

  // Sends until there is no more or the socket takes no more; new output only when the old is gone,
  // which bounds it.
  bool Write() {
    while (true) {
      if (!output_.IsDrained() && !output_.Send(fd_)) return false;
      if (!output_.IsDrained()) break;
      Recycle();
      if (!Fill()) return false;
      if (output_.IsDrained()) break;
    }
    return nghttp2_session_want_read(session_) != 0 || nghttp2_session_want_write(session_) != 0;
  }

 private:
  static Connection& Self(void* user_data) { return *static_cast<Connection*>(user_data); }

  static nghttp2_session_callbacks* Callbacks() {
    static nghttp2_session_callbacks* const callbacks = [] {
      nghttp2_session_callbacks* made = nullptr;
      if (nghttp2_session_callbacks_new(&made) != 0) Die("nghttp2_session_callbacks_new");
      nghttp2_session_callbacks_set_on_begin_headers_callback(made, &OnBeginHeaders);
      nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, &OnData);
      nghttp2_session_callbacks_set_on_frame_recv_callback(made, &OnFrame);
      nghttp2_session_callbacks_set_on_stream_close_callback(made, &OnClose);
      nghttp2_session_callbacks_set_send_data_callback(made, &SendData);
      return made;
    }();
    return callbacks;
  }

  static int OnBeginHeaders(nghttp2_session* session, const nghttp2_frame* frame, void* user_data) {
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    Connection& self = Self(user_data);
    if (self.idle_.empty()) self.idle_.push_back(std::make_unique<Body>());
    Body* body = self.idle_.back().release();
    self.idle_.pop_back();
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, body);
    return 0;
  }

  // NOLINTNEXTLINE(readability-function-size): nghttp2's signature
  static int OnData(nghttp2_session* session, uint8_t /*flags*/, int32_t stream_id,
                    const uint8_t* data, size_t size, void* /*user_data*/) {
    static_cast<Body*>(nghttp2_session_get_stream_user_data(session, stream_id))
        ->Append(data, size);
    return 0;
  }

  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* /*user_data*/) {
    const bool is_request = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
    if (!is_request || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
    static const std::array<nghttp2_nv, 2> headers = {Header(":status", "200"),
                                                      Header("content-type", "application/grpc")};
    nghttp2_data_provider provider{};
    provider.source.ptr = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    provider.read_callback = &ReadBody;
    return nghttp2_submit_response(session, frame->hd.stream_id, headers.data(), headers.size(),
                                   &provider);
  }

  // NOLINTNEXTLINE(readability-function-size): nghttp2's signature
  static ssize_t ReadBody(nghttp2_session* session, int32_t stream_id, uint8_t* /*buf*/,
                          size_t limit, uint32_t* flags, nghttp2_data_source* source,
                          void* /*user_data*/) {
    const Body& body = *static_cast<Body*>(source->ptr);
    const size_t length = body.Left(limit);
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (body.EndsAfter(length)) {
      static const std::array<nghttp2_nv, 1> trailers = {Header("grpc-status", "0")};
      *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
      if (nghttp2_submit_trailer(session, stream_id, trailers.data(), trailers.size()) != 0) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
      }
    }
    return static_cast<ssize_t>(length);
  }

  // NOLINTNEXTLINE(readability-function-size): nghttp2's signature
  static int SendData(nghttp2_session* /*session*/, nghttp2_frame* /*frame*/,
                      const uint8_t* frame_header, size_t length, nghttp2_data_source* source,
                      void* user_data) {
    penstock::load::Output& output = Self(user_data).output_;
    output.Copy(frame_header, 9);
    const uint8_t* data = static_cast<Body*>(source->ptr)->HandOut(length);
    length < kBorrowBytes ? output.Copy(data, length) : output.Borrow(data, length);
    return 0;
  }

  static int OnClose(nghttp2_session* session, int32_t stream_id, uint32_t /*error_code*/,
                     void* user_data) {
    auto* body = static_cast<Body*>(nghttp2_session_get_stream_user_data(session, stream_id));
    if (body != nullptr)
      Self(user_data).closed_.emplace_back(body);  // may still be lent to the output
    return 0;
  }

  bool Fill() {
    const uint8_t* data = nullptr;
    ssize_t size = 0;
    while (!output_.IsFull() && (size = nghttp2_session_mem_send(session_, &data)) > 0) {
      output_.Copy(data, static_cast<size_t>(size));
    }
    return size >= 0;
  }

  void Recycle() {
    for (auto& body : closed_) {
      body->Clear();
      idle_.push_back(std::move(body));
    }
    closed_.clear();
  }

  const int fd_;
  nghttp2_session* session_ = nullptr;
  penstock::load::Output output_;
  std::vector<std::unique_ptr<Body>> idle_;
  std::vector<std::unique_ptr<Body>> closed_;
};

// One thread's epoll and the connections in it.
class Loop {
 public:
  Loop() : epoll_(epoll_create1(EPOLL_CLOEXEC)) {
    if (epoll_ < 0) Die("epoll_create1");
  }

  // Thread-safe: the connection belongs to the loop's thread from here on.
  void Add(int fd) {
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    auto* connection = new Connection(fd);  // NOLINT: the loop deletes it
    epoll_event event{.events = EPOLLIN, .data = {.ptr = connection}};
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) Die("epoll_ctl");
  }

  // `accept` is called when the listener, which must have been watched with Listen, is readable.
  template <typename Accept>
  void Run(Accept accept) {
    std::array<epoll_event, 256> events;
    std::vector<uint8_t> buffer(kReceiveBytes);
    while (true) {
      const int count = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), -1);
      if (count < 0 && errno != EINTR) Die("epoll_wait");
      for (int i = 0; i < count; ++i) {
        if (events[i].data.ptr == nullptr) {
          accept();
        } else {
          Serve(static_cast<Connection*>(events[i].data.ptr), events[i].events, buffer);
        }
      }
    }
  }

  void Listen(int fd) {
    epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) Die("epoll_ctl");
  }

 private:
  void Serve(Connection* connection, uint32_t ready, std::vector<uint8_t>& buffer) {
    const bool was_blocked = connection->wants_to_write();
    bool alive = true;
    if ((ready & EPOLLOUT) != 0) alive = connection->Write();
    if (alive && (ready & ~uint32_t{EPOLLOUT}) != 0) alive = connection->Read(buffer);
    if (!alive) {
      delete connection;  // NOLINT: made by Add
    } else if (connection->wants_to_write() != was_blocked) {
      epoll_event event{.events = EPOLLIN, .data = {.ptr = connection}};
      if (!was_blocked) event.events |= EPOLLOUT;
      if (epoll_ctl(epoll_, EPOLL_CTL_MOD, connection->fd(), &event) != 0) Die("epoll_ctl");
    }
  }

  const int epoll_;
};

int ListenOn(uint16_t port) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (fd < 0 || bind(fd, generic, size) != 0 || listen(fd, SOMAXCONN) != 0) Die("listen");
  if (getsockname(fd, generic, &size) != 0) Die("getsockname");
  std::fprintf(stderr, "echo is ready: 127.0.0.1:%d\n", ntohs(address.sin_port));
  return fd;
}

struct Arguments {
  uint16_t port = 0;
  size_t threads = 1;
};

Arguments Parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view flag = argv[i];
    const unsigned long value = i + 1 < argc ? std::strtoul(argv[i + 1], nullptr, 10) : 0;
    if (flag == "--port" && value <= UINT16_MAX) {
      arguments.port = static_cast<uint16_t>(value);
    } else if (flag == "--threads" && value > 0 && value <= 1024) {
      arguments.threads = value;
    } else {
      std::fprintf(stderr, "usage: http2_echo [--port N] [--threads N]\n");
      std::exit(2);
    }
  }
  return arguments;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = Parse(argc, argv);
  std::vector<Loop> loops(arguments.threads);
  const int listener = ListenOn(arguments.port);
  loops[0].Listen(listener);
  std::vector<std::thread> threads;
  for (size_t i = 1; i < loops.size(); ++i)
    threads.emplace_back([&loop = loops[i]] { loop.Run([] {}); });
  size_t next = 0;
  loops[0].Run([&] {
    const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) loops[next++ % loops.size()].Add(fd);
  });
}
