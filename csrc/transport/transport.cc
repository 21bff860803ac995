#include "transport/transport.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"

namespace penstock {
namespace {

constexpr int kMaxAcceptsInARow = 64;

// Half of the cores, for the models want theirs: one thread carries more than 100,000 small requests
// a second.
int DefaultThreads() {
  return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1, 16);
}

int OpenSpare() { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

}  // namespace

Transport::Transport(Engine& engine, TransportOptions options)
    : shared_(std::make_shared<TransportShared>(engine, options)), spare_(OpenSpare()) {
  const int count = options.io_threads > 0 ? options.io_threads : DefaultThreads();
  for (int i = 0; i < count; ++i) threads_.push_back(std::make_unique<IoThread>(shared_, i));
}

Transport::~Transport() { Stop(0); }

Status Transport::UseTls(TlsFiles files) {
  PENSTOCK_ASSIGN_OR_RETURN(tls_, TlsContext::Create(std::move(files)));
  return Status::Ok();
}

Status Transport::Listen(int fd) {
  Socket listener(fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!listener.is_open()) {
    return InvalidArgument(
        StrCat("cannot take over descriptor ", fd, ": ", std::generic_category().message(errno)));
  }
  listeners_.push_back(std::move(listener));
  return Status::Ok();
}

void Transport::Start() {
  if (shared_->access_log != nullptr) shared_->access_log->Start();
  for (const auto& thread : threads_) thread->Start();
  for (Socket& listener : listeners_) {
    threads_[0]->WatchListener(std::move(listener), [this](int fd) { return Accept(fd); });
  }
  listeners_.clear();
}

void Transport::CloseStreams() {
  shared_->is_closing.store(true);
  for (const auto& thread : threads_) thread->CloseStreams();
}

void Transport::Drain() {
  for (const auto& thread : threads_) thread->Drain(shares_listeners_);
}

bool Transport::Stop(int64_t timeout_ns) {
  const int64_t deadline_ns = shared_->engine.clock().NowNs() + timeout_ns;
  for (const auto& thread : threads_) thread->BeginStop(deadline_ns);
  bool have_ended = true;
  for (auto& thread : threads_) {
    if (thread->Stop(deadline_ns)) continue;
    have_ended = false;
    // The batch may still end, and then touches what is left behind.
    Log(LogLevel::kError, "transport", "left behind with a request that does not end");
    [[maybe_unused]] const IoThread* const left = thread.release();
  }
  threads_.clear();
  listeners_.clear();
  if (shared_->access_log != nullptr) shared_->access_log->Stop();
  return have_ended;
}

// False: the system lacks something, such as memory, and would say so again at once.
bool Transport::Accept(int listener) {
  for (int i = 0; i < kMaxAcceptsInARow; ++i) {
    sockaddr_storage address{};
    socklen_t size = sizeof(address);
    Socket socket(accept4(listener, reinterpret_cast<sockaddr*>(&address), &size,
                          SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.is_open()) {
      AcceptOne(std::move(socket), address);
      continue;
    }
    if (errno == EMFILE || errno == ENFILE) {
      ShedOne(listener);
    } else if (errno == ENOMEM || errno == ENOBUFS) {
      LogShortage(std::generic_category().message(errno));
      return false;
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return true;
    }  // what is left are errors of the connection that was to be taken
  }
  return true;
}

void Transport::AcceptOne(Socket socket, const sockaddr_storage& address) {
  TransportCounters& counters = shared_->counters;
  const size_t most = shared_->options.max_connections;
  if (most != 0 && counters.open_connections.load(std::memory_order_relaxed) >= most) {
    counters.refused_connections.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  SetNoDelay(socket.fd());
  std::unique_ptr<TlsSession> session;
  if (tls_ != nullptr) {
    Result<std::unique_ptr<TlsSession>> made = tls_->Accept(socket.fd());
    if (!made.ok()) {
      counters.refused_connections.fetch_add(1, std::memory_order_relaxed);
      Log(LogLevel::kError, "transport", made.status().message());
      return;
    }
    session = *std::move(made);
  }
  counters.accepted_connections.fetch_add(1, std::memory_order_relaxed);
  const auto least = std::min_element(
      threads_.begin(), threads_.end(),
      [](const auto& one, const auto& other) { return one->load() < other->load(); });
  (*least)->Adopt(std::move(socket), PeerName(address), std::move(session));
}

// No descriptor is left. Whoever waits would wait until one is: it is told at once, by being closed.
void Transport::ShedOne(int listener) {
  spare_.Close();
  Socket(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)).Close();
  spare_ = Socket(OpenSpare());
  shared_->counters.refused_connections.fetch_add(1, std::memory_order_relaxed);
  LogShortage("the process has no more file descriptors");
}

// Once: it may come with every connection.
void Transport::LogShortage(std::string_view what) {
  if (std::exchange(has_logged_shortage_, true)) return;
  Log(LogLevel::kError, "transport", StrCat("connections cannot be taken: ", what));
}

}  // namespace penstock
