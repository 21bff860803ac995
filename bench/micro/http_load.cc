// HTTP/1.1 load, for servers that have no gRPC: closed loop, or open loop with Poisson arrivals; one
// request in flight on a connection. Times, percentiles and the report are penstock-load's.
//
// Run: http_load HOST:PORT PATH BODY_FILE HEADERS_FILE CONNECTIONS RATE REQUESTS JSON_FILE
// RATE 0 is the closed loop, of CONNECTIONS in flight. An answer is right if its status is 200. A
// headers file has a line for each, ended by CRLF. Exit status: 0 all answers were right, 1 not all, 2 it
// could not begin.

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/strcat.h"
#include "load/dial.h"
#include "load/ledger.h"
#include "load/pacer.h"

namespace {

using namespace penstock;        // NOLINT: a main file
using namespace penstock::load;  // NOLINT: likewise

constexpr int64_t kPatienceNs = 30'000'000'000;

// What an answer was, once it is whole.
struct Reply {
  int status = 0;
  bool closes = false;
};

// The value of a header, "" where there is none; `head` in lower case.
std::string_view Header(std::string_view head, std::string_view name) {
  const size_t at = head.find(StrCat("\r\n", name, ":"));
  if (at == std::string_view::npos) return {};
  std::string_view value = head.substr(at + name.size() + 3);
  value = value.substr(0, value.find("\r\n"));
  value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
  return value;
}

// Bytes of one answer as they come.
class Parser {
 public:
  // True once the answer is whole: then `reply` is set, and the next bytes are the next answer's.
  bool Add(std::string_view data, Reply* reply) {
    bytes_ += data;
    if (head_bytes_ == 0 && !ReadHead()) return false;
    if (is_chunked_ ? !bytes_.ends_with("0\r\n\r\n") : bytes_.size() < head_bytes_ + body_bytes_) {
      return false;
    }
    *reply = reply_;
    bytes_.clear();
    head_bytes_ = 0;
    return true;
  }

 private:
  bool ReadHead() {
    const size_t end = bytes_.find("\r\n\r\n");
    if (end == std::string::npos) return false;
    head_bytes_ = end + 4;
    std::string head = bytes_.substr(0, end);
    std::transform(head.begin(), head.end(), head.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    reply_ = {};
    const size_t code = head.find(' ') + 1;
    std::from_chars(head.data() + code, head.data() + head.size(), reply_.status);
    is_chunked_ = Header(head, "transfer-encoding") == "chunked";
    reply_.closes = Header(head, "connection") == "close";
    const std::string_view length = Header(head, "content-length");
    body_bytes_ = 0;
    std::from_chars(length.data(), length.data() + length.size(), body_bytes_);
    return true;
  }

  std::string bytes_;
  size_t head_bytes_ = 0;
  size_t body_bytes_ = 0;
  bool is_chunked_ = false;
  Reply reply_;
};

struct Connection {
  int fd = -1;
  size_t written = 0;
  uint64_t token = 0;
  bool is_busy = false;
  Parser parser;
};

struct Options {
  std::string host;
  uint16_t port = 0;
  std::string message;  // as it is sent
  size_t connections = 1;
  PacerOptions pacer;
};

// One run. Confined to its thread.
class Runner {
 public:
  explicit Runner(const Options& options) : options_(options) {}
  ~Runner() {
    for (const auto& each : connections_) close(each->fd);
    if (epoll_ >= 0) close(epoll_);
  }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  Status Start() {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) return ResourceExhausted("there is no epoll");
    for (size_t i = 0; i < options_.connections; ++i) {
      connections_.push_back(std::make_unique<Connection>());
      PENSTOCK_RETURN_IF_ERROR(Connect(connections_.back().get()));
      idle_.push_back(connections_.back().get());
    }
    progress_ns_ = clock_.NowNs();
    pacer_ = std::make_unique<Pacer>(options_.pacer, progress_ns_);
    ledger_ = std::make_unique<Ledger>(progress_ns_);
    return Status::Ok();
  }

  Report& Run() {
    while (Turn()) {
    }
    Report& report = ledger_->report();
    for (const auto& each : connections_) {
      if (each->is_busy) End(each.get(), Outcome::kNoAnswer, "none when the run ended");
    }
    report.target_rate = options_.pacer.rate;
    return report;
  }

 private:
  Status Connect(Connection* connection) {
    PENSTOCK_ASSIGN_OR_RETURN(connection->fd, Dial(options_.host, options_.port));
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = connection;
    epoll_ctl(epoll_, EPOLL_CTL_ADD, connection->fd, &event);
    return Status::Ok();
  }

  bool Turn() {
    int64_t now_ns = clock_.NowNs();
    while (!idle_.empty()) {
      const auto due = pacer_->Next(now_ns, ledger_->in_flight());
      if (!due) break;
      Connection* connection = idle_.back();
      idle_.pop_back();
      connection->is_busy = true;
      connection->written = 0;
      connection->token = ledger_->Begin(*due, now_ns, 0, "");
      Write(connection);
      now_ns = clock_.NowNs();
    }
    if (ledger_->in_flight() == 0) {
      if (pacer_->IsOver(now_ns)) return false;
      progress_ns_ = now_ns;
    }
    if (now_ns - progress_ns_ >= kPatienceNs) EndEarly("no answer for 30 s");
    if (!ledger_->report().ended_early.empty()) return false;
    Poll(std::min(progress_ns_ + kPatienceNs, pacer_->NextNs(now_ns, ledger_->in_flight())) -
         now_ns);
    return true;
  }

  void Poll(int64_t wait_ns) {
    wait_ns = std::max<int64_t>(wait_ns, 0);
    const timespec wait{wait_ns / 1'000'000'000, wait_ns % 1'000'000'000};
    std::array<epoll_event, 256> events;
    const int count = epoll_pwait2(epoll_, events.data(), events.size(), &wait, nullptr);
    for (int i = 0; i < count; ++i) {
      auto* connection = static_cast<Connection*>(events[i].data.ptr);
      if ((events[i].events & EPOLLOUT) != 0) Write(connection);
      if ((events[i].events & ~EPOLLOUT) != 0) Read(connection);
    }
  }

  void Write(Connection* connection) {
    const std::string& message = options_.message;
    const bool was_partial = connection->written > 0;
    while (connection->written < message.size()) {
      const ssize_t sent = send(connection->fd, message.data() + connection->written,
                                message.size() - connection->written, MSG_NOSIGNAL);
      if (sent < 0) break;  // full, or broken, which the next read will say
      connection->written += static_cast<size_t>(sent);
    }
    const bool is_partial = connection->written < message.size();
    if (!was_partial && !is_partial) return;
    epoll_event event{};
    event.events = is_partial ? EPOLLIN | EPOLLOUT : EPOLLIN;
    event.data.ptr = connection;
    epoll_ctl(epoll_, EPOLL_CTL_MOD, connection->fd, &event);
  }

  void Read(Connection* connection) {
    const ssize_t size = recv(connection->fd, buffer_.data(), buffer_.size(), 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) return Reconnect(connection);
    Reply reply;
    const std::string_view data(buffer_.data(), static_cast<size_t>(size));
    if (!connection->parser.Add(data, &reply) || !connection->is_busy) return;
    const std::string text = StrCat("status ", reply.status);
    End(connection, reply.status == 200 ? Outcome::kOk : Outcome::kRequestFailed, text);
    if (reply.closes) return Reconnect(connection);
    idle_.push_back(connection);
  }

  void Reconnect(Connection* connection) {
    if (connection->is_busy) End(connection, Outcome::kConnectionLost, "closed by the server");
    idle_.erase(std::remove(idle_.begin(), idle_.end(), connection), idle_.end());
    close(connection->fd);
    connection->parser = {};
    ++ledger_->report().reconnects;
    const Status status = Connect(connection);
    if (!status.ok()) return EndEarly(status.message());
    idle_.push_back(connection);
  }

  void End(Connection* connection, Outcome outcome, std::string_view text) {
    progress_ns_ = clock_.NowNs();
    connection->is_busy = false;
    ledger_->End(connection->token, progress_ns_, outcome, text);
  }

  void EndEarly(std::string_view why) { ledger_->report().ended_early = why; }

  Clock& clock_ = Clock::System();
  const Options& options_;
  int epoll_ = -1;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<Connection*> idle_;
  std::unique_ptr<Pacer> pacer_;
  std::unique_ptr<Ledger> ledger_;
  int64_t progress_ns_ = 0;
  std::array<char, 1 << 16> buffer_;
};

std::string ReadFile(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Options ParseOptions(char** arguments) {
  Options options;
  const std::string address = arguments[1];
  const size_t colon = address.rfind(':');
  options.host = address.substr(0, colon);
  options.port = static_cast<uint16_t>(std::stoi(address.substr(colon + 1)));
  const std::string body = ReadFile(arguments[3]);
  options.message = StrCat("POST ", arguments[2], " HTTP/1.1\r\nHost: ", address, "\r\n",
                           ReadFile(arguments[4]), "Content-Length: ", body.size(), "\r\n\r\n");
  options.message += body;
  options.connections = std::stoul(arguments[5]);
  options.pacer.max_in_flight = options.connections;
  options.pacer.rate = std::stod(arguments[6]);
  options.pacer.requests = std::stoull(arguments[7]);
  return options;
}

int Main(char** arguments) {
  const Options options = ParseOptions(arguments);
  const auto runner = std::make_unique<Runner>(options);
  if (const Status status = runner->Start(); !status.ok()) {
    std::fprintf(stderr, "http_load: %s\n", std::string(status.message()).c_str());
    return 2;
  }
  const Report& report = runner->Run();
  std::fputs(report.ToText().c_str(), stdout);
  std::ofstream(arguments[8]) << report.ToJson();
  return report.is_clean() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 9) return Main(argv);
  std::fputs("usage: http_load HOST:PORT PATH BODY HEADERS CONNECTIONS RATE REQUESTS JSON\n",
             stderr);
  return 2;
}
