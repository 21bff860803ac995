#include "transport/io_thread.h"

#include <poll.h>
#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <exception>
#include <new>
#include <system_error>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/strcat.h"
#include "transport/infer_call.h"

namespace penstock {
namespace {

constexpr int64_t kListenerRestNs = 100 * kNsPerMs;
constexpr int64_t kLastMomentNs = 1'000 * kNsPerMs;  // for a turn that is under way

int MakeEpoll() {
  const int fd = epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  return fd;
}

void Control(int epoll, int operation, int fd, uint32_t events, void* source) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = source;
  if (epoll_ctl(epoll, operation, fd, &event) != 0) {
    throw std::system_error(errno, std::generic_category(), "epoll_ctl");
  }
}

}  // namespace

// What one connection runs into, for want of memory, is its own end and nobody else's.
template <typename Action>
void IoThread::Protect(Connection* connection, Action action) {
  if (connection->is_closed()) return;
  try {
    action(*connection);
  } catch (const std::exception& error) {
    Log(LogLevel::kError, "transport",
        StrCat("the connection of ", connection->peer(), " is given up: ", error.what()));
    connection->Abort();
  }
}

IoThread::IoThread(std::shared_ptr<TransportShared> shared, int index)
    : shared_(std::move(shared)),
      index_(index),
      has_access_policy_(shared_->engine.admission().access().is_active()),
      mailbox_(std::make_shared<Mailbox>()),
      completions_(engine().MakeCompletionQueue()),
      epoll_(MakeEpoll()),
      read_buffer_(kReadBytes),
      now_ns_(engine().clock().NowNs()),
      random_(static_cast<uint32_t>(now_ns_) + static_cast<uint32_t>(index)) {
  Control(epoll_.fd(), EPOLL_CTL_ADD, mailbox_->fd(), EPOLLIN, mailbox_.get());
  Control(epoll_.fd(), EPOLL_CTL_ADD, completions_->fd(), EPOLLIN, completions_.get());
}

IoThread::~IoThread() {
  BeginStop(0);
  thread_.Join();
  CloseConnections();
}

void IoThread::Start() {
  {
    MutexLock lock(end_mu_);
    is_running_ = true;
  }
  thread_ = Thread(StrCat("ps-io-", index_), [this] { Run(); });
}

void IoThread::BeginStop(int64_t deadline_ns) {
  if (is_stopping_.load()) return;
  stop_deadline_ns_ = deadline_ns;
  is_stopping_.store(true);
  mailbox_->Post([] {});
}

bool IoThread::Stop(int64_t deadline_ns) {
  BeginStop(deadline_ns);
  {
    MutexLock lock(end_mu_);
    const int64_t last_ns = deadline_ns + kLastMomentNs;
    while (is_running_) {
      if (engine().clock().NowNs() >= last_ns) return false;
      engine().clock().WaitUntil(ended_, end_mu_, last_ns);
    }
  }
  thread_.Join();
  return open_requests_.load() == 0;
}

void IoThread::Run() noexcept {
  while (!is_stopping_.load(std::memory_order_acquire)) {
    try {
      Turn(-1);
    } catch (const std::exception& error) {
      Log(LogLevel::kError, "transport", StrCat("a turn of the loop failed: ", error.what()));
    }
  }
  mailbox_->Close();
  CloseConnections();
  WaitForRequests(stop_deadline_ns_);
  MutexLock lock(end_mu_);
  is_running_ = false;
  ended_.NotifyAll();
}

void IoThread::Turn(int timeout_ms) {
  HandleEvents(TimeoutMs(timeout_ms));
  RunTimers();
  FlushConnections();
  while (!unflushed_.empty() || !dirty_.empty()) {  // what was sent made room for more
    RunInference();
    TakeOutcomes();
    FlushConnections();
  }
  DeleteClosed();
}

int IoThread::TimeoutMs(int asked_ms) const {
  // What is left of a turn that failed is done in the next.
  if (!again_.empty() || !dirty_.empty() || !unflushed_.empty() || !closed_.empty()) return 0;
  if (timer_ns_ == kNever) return asked_ms;
  const int64_t left_ns = std::max<int64_t>(timer_ns_ - engine().clock().NowNs(), 0);
  const auto left_ms =
      static_cast<int>(std::min<int64_t>((left_ns + kNsPerMs - 1) / kNsPerMs, 3'600'000));
  return asked_ms < 0 ? left_ms : std::min(asked_ms, left_ms);
}

void IoThread::HandleEvents(int timeout_ms) {
  std::array<epoll_event, kMaxEvents> events;
  const int count = epoll_wait(epoll_.fd(), events.data(), kMaxEvents, timeout_ms);
  now_ns_ = engine().clock().NowNs();
  const CompletionQueue::Turn turn(*completions_);  // outcomes are taken below, unasked
  std::vector<Connection*> again;
  again.swap(again_);
  for (Connection* connection : again) {
    Protect(connection, [](Connection& readable) { readable.OnReadable(); });
  }
  for (int i = 0; i < count; ++i) {
    HandleEvent(events[static_cast<size_t>(i)].data.ptr, events[static_cast<size_t>(i)].events);
  }
  RunInference();
  TakeOutcomes();
}

void IoThread::HandleEvent(void* source, uint32_t events) {
  if (source == completions_.get()) return;
  if (source == mailbox_.get()) {
    RunTasks();
    return;
  }
  for (const auto& listener : listeners_) {
    if (source != listener.get()) continue;
    if (listener->socket.is_open() && !listener->on_readable(listener->socket.fd())) {
      Rest(listener.get());
    }
    return;
  }
  Protect(static_cast<Connection*>(source), [&](Connection& connection) {
    if ((events & EPOLLOUT) != 0) connection.OnWritable();
    if ((events & ~static_cast<uint32_t>(EPOLLOUT)) != 0 && !connection.is_closed()) {
      connection.OnReadable();
    }
  });
}

void IoThread::RunTasks() {
  for (const Mailbox::Task& task : mailbox_->Take()) {
    try {
      task();
    } catch (const std::exception& error) {
      Log(LogLevel::kError, "transport", StrCat("what was asked of a call failed: ", error.what()));
    }
  }
}

void IoThread::Infer(const ReplyRef& reply, const Caller* caller) {
  InferRequest& request = AsInfer(reply->request);
  request.completions = completions_.get();
  request.tag = ReplyRef(reply).Release();
  open_requests_.fetch_add(1, std::memory_order_relaxed);
  engine().Infer(reply->request, {caller, Wake::kLater});
  AddUnflushed(request);
}

// A refused request may have no version; one that is being replaced is flushed for nothing.
void IoThread::AddUnflushed(const InferRequest& request) {
  const auto& version = request.version;
  if (version != nullptr && (unflushed_.empty() || unflushed_.back() != version)) {
    unflushed_.push_back(version);
  }
}

// Its model was loaded meanwhile, and only now it is known whether it is decoupled.
void IoThread::Retry(const RequestRef& ref) {
  engine().Retry(ref);
  AddUnflushed(AsInfer(ref));
  const ReplyRef reply(static_cast<Reply*>(AsInfer(ref).tag));
  if (!AsInfer(ref).is_decoupled || reply->call == nullptr) return;
  if (reply->call->connection() == nullptr) return;
  Protect(reply->call->connection(), [&](Connection&) { reply->call->OnFoundDecoupled(reply); });
}

// Runs here what is quick, wakes instances for the rest.
void IoThread::RunInference() {
  for (const auto& version : unflushed_) {
    if (!version->TryRunHere()) version->Flush();
  }
  unflushed_.clear();
}

void IoThread::TakeOutcomes() {
  completions_->Take(&taken_);
  for (RequestRef& request : taken_) {
    const RequestRef ref = std::move(request);
    OnOutcome(ref);
  }
  taken_.clear();
}

// Whatever fails here, the others of the batch get their outcomes.
void IoThread::OnOutcome(const RequestRef& ref) {
  InferRequest& request = AsInfer(ref);
  if (request.retries) return Retry(ref);
  if (request.is_decoupled && !TakeResponses(request)) return;
  const ReplyRef reply = ReplyRef::Adopt(static_cast<Reply*>(std::exchange(request.tag, nullptr)));
  open_requests_.fetch_sub(1, std::memory_order_relaxed);
  reply->is_done = true;
  if (request.status.ok()) request.status = reply->failure;
  reply->ends_by_parts = !request.has_final_message();
  try {
    if (reply->call != nullptr && !reply->ends_by_parts) reply->call->Prepare(reply.get());
  } catch (const std::bad_alloc&) {
    request.status = reply->status = ResourceExhausted("no memory for the response");
  }
  engine().Release(request);
  if (reply->call == nullptr || reply->call->connection() == nullptr) return;
  Protect(reply->call->connection(), [&](Connection&) {
    if (request.is_decoupled) {
      reply->call->EndResponses(reply);
    } else {
      reply->call->SendOutcomes();
    }
  });
}

// True: the decoupled request is done.
bool IoThread::TakeResponses(InferRequest& request) {
  blocks_.clear();
  const bool is_done = request.Take(&blocks_);
  const ReplyRef reply(static_cast<Reply*>(request.tag));
  if (!blocks_.empty() && reply->call != nullptr && reply->call->connection() != nullptr) {
    Protect(reply->call->connection(),
            [&](Connection&) { reply->call->SendResponses(reply, &blocks_); });
  }
  blocks_.clear();  // what nobody waits for any more
  return is_done;
}

void IoThread::MarkDirty(Connection* connection) {
  if (std::exchange(connection->is_dirty, true)) return;
  dirty_.push_back(connection);
}

void IoThread::ReadAgain(Connection* connection) { again_.push_back(connection); }

void IoThread::FlushConnections() {
  for (size_t i = 0; i < dirty_.size(); ++i) {  // one may make itself or another dirty again
    Connection* const connection = dirty_[i];
    connection->is_dirty = false;
    Protect(connection, [](Connection& dirty) { dirty.Flush(); });
  }
  dirty_.clear();
}

void IoThread::Watch(Connection& connection, uint32_t events) {
  Control(epoll_.fd(), EPOLL_CTL_MOD, connection.fd(), events, &connection);
}

int64_t IoThread::Jittered(int64_t ns) {
  return ns - ns / 10 +
         static_cast<int64_t>(static_cast<double>(ns) * 0.2 *
                              std::uniform_real_distribution<>()(random_));
}

void IoThread::Adopt(Socket socket, std::string peer, std::unique_ptr<TlsSession> tls) {
  connection_count_.fetch_add(1, std::memory_order_relaxed);
  shared_->counters.open_connections.fetch_add(1, std::memory_order_relaxed);
  // A task is copyable, these are not.
  struct Newcomer {
    Socket socket;
    std::string peer;
    std::unique_ptr<TlsSession> tls;
  };
  const auto newcomer =
      std::make_shared<Newcomer>(Newcomer{std::move(socket), std::move(peer), std::move(tls)});
  mailbox_->Post([this, newcomer] {
    Add(std::move(newcomer->socket), std::move(newcomer->peer), std::move(newcomer->tls));
  });
}

void IoThread::Add(Socket socket, std::string peer, std::unique_ptr<TlsSession> tls) {
  const int fd = socket.fd();
  std::unique_ptr<Connection> made;
  try {
    made = std::make_unique<Connection>(*this, std::move(socket), std::move(peer), std::move(tls));
  } catch (...) {
    CountClosed();
    throw;
  }
  Connection* const connection = made.get();
  connections_.emplace(connection, std::move(made));
  if (connection->is_closed()) return;
  Control(epoll_.fd(), EPOLL_CTL_ADD, fd, EPOLLIN, connection);
  if (is_draining_) connection->Drain();
  MarkDirty(connection);
}

void IoThread::CountClosed() {
  connection_count_.fetch_sub(1, std::memory_order_relaxed);
  const bool was_last =
      shared_->counters.open_connections.fetch_sub(1, std::memory_order_relaxed) == 1;
  if (was_last) events().Signal();  // whoever stops the server waits for it
}

// Out of epoll by name: a child of this process may hold the socket open for a moment more.
void IoThread::OnConnectionClosed(Connection& connection) {
  epoll_ctl(epoll_.fd(), EPOLL_CTL_DEL, connection.fd(), nullptr);
  closed_.push_back(&connection);
}

void IoThread::DeleteClosed() {
  if (closed_.empty()) return;
  for (Connection* connection : closed_) {
    std::erase(again_, connection);
    std::erase(dirty_, connection);
    CountClosed();
    connections_.erase(connection);
  }
  closed_.clear();
}

void IoThread::CloseConnections() {
  for (const auto& [connection, owned] : connections_) connection->Abort();
  DeleteClosed();
}

// What waits in it would be told of again and again.
void IoThread::Rest(Listener* listener) {
  listener->rests_until_ns = now_ns_ + kListenerRestNs;
  Control(epoll_.fd(), EPOLL_CTL_MOD, listener->socket.fd(), 0, listener);
  SetTimer(listener->rests_until_ns);
}

void IoThread::WakeListeners() {
  for (const auto& listener : listeners_) {
    if (listener->rests_until_ns == kNever || !listener->socket.is_open()) continue;
    if (listener->rests_until_ns <= now_ns_) {
      listener->rests_until_ns = kNever;
      Control(epoll_.fd(), EPOLL_CTL_MOD, listener->socket.fd(), EPOLLIN, listener.get());
    } else {
      SetTimer(listener->rests_until_ns);
    }
  }
}

void IoThread::RunTimers() {
  if (now_ns_ < timer_ns_) return;
  timer_ns_ = kNever;
  WakeListeners();
  for (const auto& [connection, owned] : connections_) {
    if (connection->due_ns() <= now_ns_) {
      Protect(connection, [&](Connection& due) { due.OnTimer(now_ns_); });
    } else {
      SetTimer(connection->due_ns());
    }
  }
}

void IoThread::WatchListener(Socket listener, std::function<bool(int fd)> on_readable) {
  // A task is copyable, a socket is not.
  const auto shared = std::make_shared<Socket>(std::move(listener));
  mailbox_->Post([this, shared, on_readable = std::move(on_readable)] {
    const int fd = shared->fd();
    listeners_.push_back(std::make_unique<Listener>(
        Listener{.socket = std::move(*shared), .on_readable = on_readable}));
    Control(epoll_.fd(), EPOLL_CTL_ADD, fd, EPOLLIN, listeners_.back().get());
  });
}

void IoThread::Drain(bool leaves_listeners) {
  mailbox_->Post([this, leaves_listeners] {
    is_draining_ = true;
    for (const auto& listener : listeners_) {
      if (!listener->socket.is_open()) continue;
      // Out of epoll by name, too: a socket that others have stays in it when it is closed here.
      epoll_ctl(epoll_.fd(), EPOLL_CTL_DEL, listener->socket.fd(), nullptr);
      if (!leaves_listeners) shutdown(listener->socket.fd(), SHUT_RDWR);
      listener->socket.Close();
    }
    for (const auto& [connection, owned] : connections_) connection->Drain();
  });
}

void IoThread::CloseStreams() {
  mailbox_->Post([this] {
    for (const auto& [connection, owned] : connections_) connection->CloseStreams();
  });
}

void IoThread::WaitForRequests(int64_t deadline_ns) {
  while (open_requests_.load() != 0) {
    now_ns_ = engine().clock().NowNs();
    if (now_ns_ >= deadline_ns) return;
    const int64_t left_ms = std::min<int64_t>((deadline_ns - now_ns_) / kNsPerMs + 1, 1000);
    pollfd outcomes{completions_->fd(), POLLIN, 0};
    poll(&outcomes, 1, static_cast<int>(left_ms));
    TakeOutcomes();
  }
}

}  // namespace penstock
