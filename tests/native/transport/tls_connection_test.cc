// A connection with TLS, turned by hand, and a client that OpenSSL drives.

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <chrono>

#include "testing/fake_clock.h"
#include "tls_peers.h"
#include "transport_harness.h"

namespace penstock {
namespace {

class TlsConnection : public testing::Test {
 protected:
  void SetUp() override {
    const Identity server = MakeIdentity({.common_name = "server"});
    auto context = TlsContext::Create({.certificate = directory_.Put("c", CertificatePem(server)),
                                       .key = directory_.Put("k", KeyPem(server))});
    ASSERT_TRUE(context.ok()) << context.status().ToString();
    context_ = *std::move(context);
  }

  // Hands the server's end over, and shakes hands.
  void Connect(TlsClient& client) {
    const int fd = dup(client.server_fd());
    auto session = context_->Accept(fd);
    ASSERT_TRUE(session.ok());
    harness_.io->Adopt(Socket(fd), "unix:", *std::move(session));
    harness_.Until([&] { return SSL_do_handshake(client.ssl()) == 1; });
  }

  // Hands the server's end over; the client has said nothing yet.
  void Adopt(TlsClient& client) {
    const int fd = dup(client.server_fd());
    auto session = context_->Accept(fd);
    ASSERT_TRUE(session.ok());
    harness_.io->Adopt(Socket(fd), "unix:", *std::move(session));
    harness_.Settle();
  }

  Engine::Options WithClock() {
    Engine::Options options;
    options.clock = &clock_;
    return options;
  }

  FakeClock clock_;
  TransportHarness harness_{{}, WithClock()};
  TemporaryDirectory directory_;
  std::unique_ptr<TlsContext> context_;
};

// Each of these updates asks for one in return, which the client does not read: the server can
// read no further before it has written, and must not turn in circles over what is readable.
TEST_F(TlsConnection, ReadThatMustWriteFirstWaitsWithoutTurningInCircles) {
  TlsClient client;
  Connect(client);
  bool is_pending = false;  // one that did not get out whole
  const auto update = [&] {
    if (!is_pending) SSL_key_update(client.ssl(), SSL_KEY_UPDATE_REQUESTED);
    is_pending = SSL_do_handshake(client.ssl()) != 1;
    return !is_pending;
  };
  int updates = 0;
  harness_.Until([&] {  // the server's side of the socket is full, then the client's
    const int before = updates;
    while (update()) updates += 1;
    return updates == before;
  });
  harness_.Settle();
  const auto begin = std::chrono::steady_clock::now();
  harness_.io->Turn(200);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(150));
  EXPECT_EQ(harness_.shared->counters.open_connections.load(), 1U);

  // Once what it has written is taken, it reads on: the client, which OpenSSL lets read no sooner
  // than write, gets its next update out.
  const int before = updates;
  std::array<char, 65536> taken;
  harness_.Until([&] {
    while (recv(client.fd(), taken.data(), taken.size(), 0) > 0) {
    }
    updates += static_cast<int>(update());
    return updates > before;
  });
  client.Close();
  harness_.Until([&] { return harness_.shared->counters.open_connections.load() == 0; });
}

// GOAWAY frames without a text: the notice, which names the greatest stream, and the last one of a
// connection that has had no stream.
constexpr std::string_view kNotice("\x00\x00\x08\x07\x00\x00\x00\x00\x00\x7f\xff\xff\xff", 13);
constexpr std::string_view kLastGoaway("\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00", 13);

// A drain that begins in the middle of a handshake: the client is told to go elsewhere in words
// that it understands, and does not see a server that breaks.
TEST_F(TlsConnection, HandshakeUnderWayAtADrainEndsAndThenTheClientIsToldToGo) {
  TlsClient client;
  Adopt(client);
  EXPECT_NE(SSL_do_handshake(client.ssl()), 1);  // its first words are on their way
  harness_.io->Drain();
  harness_.Settle();
  harness_.Until([&] { return SSL_do_handshake(client.ssl()) == 1; });
  client.Write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
  client.Write({"\x00\x00\x00\x04\x00\x00\x00\x00\x00", 9});  // SETTINGS
  std::string received;
  const auto has_come = [&](std::string_view goaway) {
    received += client.ReadAll().first;
    return received.find(goaway) != std::string::npos;
  };
  harness_.Until([&] { return has_come(kNotice); });
  EXPECT_FALSE(has_come(kLastGoaway));  // calls may be on their way
  clock_.Advance(1'100'000'000);
  harness_.Until([&] { return has_come(kLastGoaway); });
  client.Close();
  harness_.Until([&] { return harness_.shared->counters.open_connections.load() == 0; });
}

TEST_F(TlsConnection, HandshakeThatDoesNotEndIsGivenUpSomeSecondsIntoADrain) {
  TlsClient client;
  Adopt(client);
  harness_.io->Drain();
  harness_.Settle();
  clock_.Advance(4'900'000'000);
  harness_.Settle();
  EXPECT_EQ(harness_.shared->counters.open_connections.load(), 1U);
  clock_.Advance(200'000'000);
  harness_.Until([&] { return harness_.shared->counters.open_connections.load() == 0; });
}

}  // namespace
}  // namespace penstock
