// The transport on its own threads, over TCP.

#include "transport/transport.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <netinet/in.h>
#include <poll.h>

#include <atomic>
#include <thread>
#include <vector>

#include "transport_harness.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::EndsWith;

Socket Listener() {
  Socket listener(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(bind(listener.fd(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(listen(listener.fd(), 128), 0);
  return listener;
}

int ConnectTo(const Socket& listener) {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  getsockname(listener.fd(), reinterpret_cast<sockaddr*>(&address), &size);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  return fd;
}

// Waits for bytes of the server; the client's socket is its only one.
void AwaitClosed(Http2Client& client, int fd, int32_t id) {
  while (!client.response(id).is_closed && client.Pump()) {
    if (client.response(id).is_closed) return;
    pollfd readable{fd, POLLIN, 0};
    ASSERT_EQ(poll(&readable, 1, 30'000), 1) << "waited in vain";
  }
}

class RunningTransport : public testing::Test {
 protected:
  // As the server ends: the transport first.
  ~RunningTransport() override { EXPECT_TRUE(transport_.Stop(kLongNs)); }

  void Start() {
    ASSERT_TRUE(transport_.Listen(listener_.fd()).ok());
    transport_.SetLoaded();
    transport_.Start();
  }

  EngineHarness models_;
  Socket listener_ = Listener();
  Transport transport_{models_.engine, {.io_threads = 2, .max_connections = 16}};
};

TEST_F(RunningTransport, ManyClientsGetTheirOwnAnswers) {
  models_.Serve(IdentitySpec());
  Start();
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      const int fd = ConnectTo(listener_);
      Http2Client client(fd);
      for (int i = 0; i < 50; ++i) {
        const std::vector<float> row = {static_cast<float>(t), static_cast<float>(i)};
        const int32_t unary = client.Call(kInfer, RowRequest(row));
        const int32_t stream = client.Call(kStreamInfer, RowRequest(row));
        const int32_t left = client.Call(kInfer, RowRequest(row));
        client.Pump();
        client.Reset(left);
        for (const int32_t id : {unary, stream}) {
          AwaitClosed(client, fd, id);
          const std::vector<std::string> messages = Unframed(client.response(id).body);
          right += messages.size() == 1 && messages[0].ends_with(RawOf(row));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right.load(), 6 * 50 * 2);
  EXPECT_EQ(transport_.counters().accepted_connections.load(), 6U);
}

TEST_F(RunningTransport, ForeignCallsAreAnsweredFromAnotherThread) {
  Start();
  std::atomic<bool> is_over{false};
  std::thread handler([&] {
    while (!is_over.load()) {
      pollfd readable{transport_.events().fd(), POLLIN, 0};
      poll(&readable, 1, 50);
      for (CallEvent& event : transport_.events().Take()) {
        if (event.kind == CallEvent::Kind::kStarted) event.call->Read();
        if (event.kind != CallEvent::Kind::kMessage) continue;
        const auto bytes = event.message.span();
        Buffer copy = HostPool::Shared().Allocate(bytes.size());
        std::copy(bytes.begin(), bytes.end(), copy.data());
        event.call->Write(std::move(copy));
        event.call->End(Status::Ok(), {});
      }
    }
  });
  const int fd = ConnectTo(listener_);
  Http2Client client(fd);
  for (int i = 0; i < 50; ++i) {
    const int32_t id = client.Call("/a.B/C", Framed("echo"));
    AwaitClosed(client, fd, id);
    EXPECT_THAT(Unframed(client.response(id).body), ElementsAre("echo"));
  }
  is_over.store(true);
  handler.join();
}

TEST_F(RunningTransport, ConnectionsOverTheLimitAreClosed) {
  Start();
  std::vector<Socket> sockets;
  for (int i = 0; i < 20; ++i) sockets.emplace_back(ConnectTo(listener_));
  char byte = 0;
  EXPECT_EQ(recv(sockets.back().fd(), &byte, 1, 0), 0);
  EXPECT_GE(transport_.counters().refused_connections.load(), 1U);
  EXPECT_LE(transport_.counters().open_connections.load(), 16U);
}

TEST_F(RunningTransport, DrainClosesTheListeners) {
  Start();
  transport_.Drain();
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  getsockname(listener_.fd(), reinterpret_cast<sockaddr*>(&address), &size);
  bool is_refused = false;
  while (!is_refused) {  // the thread hears of it in a moment
    const Socket socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    is_refused =
        connect(socket.fd(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 &&
        errno == ECONNREFUSED;
  }
}

TEST_F(RunningTransport, DrainLeavesSharedListenersToTheOthers) {
  models_.Serve(IdentitySpec());
  Start();
  transport_.ShareListeners();
  const Socket served(ConnectTo(listener_));
  Http2Client client(served.fd());
  const int32_t id = client.Call(kInfer, RowRequest({1}));
  AwaitClosed(client, served.fd(), id);
  transport_.Drain();
  EXPECT_TRUE(transport_.Stop(kLongNs));
  const Socket waiting(ConnectTo(listener_));
  pollfd readable{listener_.fd(), POLLIN, 0};
  ASSERT_EQ(poll(&readable, 1, 30'000), 1) << "the connection does not wait in the socket";
  EXPECT_TRUE(Socket(accept(listener_.fd(), nullptr, nullptr)).is_open());
}

TEST_F(RunningTransport, StopWaitsForWhatRunsAndAnswersNobody) {
  Gate gate;
  models_.Serve(IdentitySpec(), EchoBehind(gate));
  Start();
  const int fd = ConnectTo(listener_);
  Http2Client client(fd);
  client.Call(kInfer, RowRequest({1}));
  client.Pump();
  gate.AwaitArrived(1);
  std::thread opener([&] {
    while (client.Pump()) {  // until the connection is closed, which Stop does first
      pollfd readable{fd, POLLIN, 0};
      poll(&readable, 1, 30'000);
    }
    gate.Open();
  });
  EXPECT_TRUE(transport_.Stop(kLongNs));
  opener.join();
  EXPECT_EQ(models_.engine.admission().inflight(), 0U);
}

}  // namespace
}  // namespace penstock
