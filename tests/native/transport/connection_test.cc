#include <gmock/gmock.h>
#include <unistd.h>

#include <string_view>

#include "base/clock.h"
#include "testing/fake_clock.h"
#include "transport_harness.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

TEST(Connection, GarbageIsClosedWithoutAnAnswer) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  client.SendRaw("GET / HTTP/1.1\r\nHost: x\r\n\r\n................");
  harness.Until([&] { return !client.Pump(); });
  EXPECT_EQ(harness.shared->counters.open_connections.load(), 0U);
}

TEST(Connection, DrainLetsCallsFinishAndThenCloses) {
  TransportHarness harness;
  Gate gate;
  harness.models.Serve(IdentitySpec(), EchoBehind(gate));
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kInfer, RowRequest({1}));
  harness.Settle();
  gate.AwaitArrived(1);
  harness.io->Drain();
  harness.Until([&] { return client.goaways.size() == 2; });
  EXPECT_THAT(client.goaways, ElementsAre(NGHTTP2_NO_ERROR, NGHTTP2_NO_ERROR));
  EXPECT_FALSE(client.is_closed);
  gate.Open();
  EXPECT_EQ(harness.Await(client, id).status(), "0");
  harness.Until([&] { return !client.Pump(); });
}

TEST(Connection, PingsWithoutReasonAreTooMany) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  for (int i = 0; i < 8; ++i) client.Ping();
  harness.Until([&] { return !client.Pump(); });
  ASSERT_FALSE(client.goaways.empty());
  EXPECT_EQ(client.goaways.front(), NGHTTP2_ENHANCE_YOUR_CALM);
}

// Time stands still but for what the test lets pass.
class TimedConnection : public testing::Test {
 protected:
  FakeClock clock_;

  Engine::Options WithClock() {
    Engine::Options options;
    options.clock = &clock_;
    return options;
  }
};

TEST_F(TimedConnection, SilentPeerIsPingedAndClosed) {
  TransportHarness harness(
      {.keepalive_time_ns = 100 * kNsPerS, .keepalive_timeout_ns = 20 * kNsPerS}, WithClock());
  Http2Client& answers = harness.Connect();
  harness.Settle();
  clock_.Advance(101 * kNsPerS);
  harness.Settle();  // the ping, and its answer
  clock_.Advance(21 * kNsPerS);
  harness.Settle();
  EXPECT_TRUE(answers.Pump());
  answers.Close();
  harness.Until([&] { return harness.shared->counters.open_connections.load() == 0; });
}

TEST_F(TimedConnection, PeerThatDoesNotGetAsFarAsItsSettingsIsClosed) {
  TransportHarness harness({}, WithClock());
  const std::string_view beginning("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0", 32);
  for (const size_t size : {size_t{0}, size_t{1}, size_t{24}, size_t{32}}) {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    const Socket slow(ends[1]);
    harness.io->Adopt(Socket(ends[0]), "unix:", nullptr);
    ASSERT_EQ(write(slow.fd(), beginning.data(), size), static_cast<ssize_t>(size));
    harness.Settle();
    EXPECT_EQ(harness.shared->counters.open_connections.load(), 1U);
    clock_.Advance(21 * kNsPerS);
    harness.Settle();
    EXPECT_EQ(harness.shared->counters.open_connections.load(), 0U) << size;
  }
}

TEST_F(TimedConnection, IsAskedToLeaveAtItsAge) {
  TransportHarness harness({.max_connection_age_ns = 100 * kNsPerS}, WithClock());
  Http2Client& client = harness.Connect();
  harness.Settle();
  clock_.Advance(80 * kNsPerS);
  harness.Settle();
  EXPECT_THAT(client.goaways, IsEmpty());
  clock_.Advance(40 * kNsPerS);
  harness.Settle();
  clock_.Advance(2 * kNsPerS);  // nghttp2's client answers no ping when it has no call left
  harness.Until([&] { return !client.Pump(); });
  EXPECT_THAT(client.goaways, ElementsAre(NGHTTP2_NO_ERROR));
}

// Also where its time is up sooner than that of the handshake, which is what is looked at first.
TEST_F(TimedConnection, OfFewSecondsOfAgeIsAskedToLeaveAtThem) {
  TransportHarness harness({.max_connection_age_ns = 2 * kNsPerS}, WithClock());
  Http2Client& client = harness.Connect();
  client.Call("/a.B/C", "", false);
  harness.Settle();
  clock_.Advance(3 * kNsPerS);
  harness.Settle();
  EXPECT_THAT(client.goaways, Not(IsEmpty()));
}

TEST_F(TimedConnection, OfAgeIsClosedWithItsCallsAfterTheGrace) {
  TransportHarness harness(
      {.max_connection_age_ns = 100 * kNsPerS, .max_connection_age_grace_ns = 30 * kNsPerS},
      WithClock());
  Http2Client& client = harness.Connect();
  client.Call("/a.B/C", "", false);
  harness.Settle();
  clock_.Advance(112 * kNsPerS);  // ages differ by a tenth
  harness.Settle();
  EXPECT_THAT(client.goaways, Not(IsEmpty()));
  EXPECT_EQ(harness.shared->counters.open_connections.load(), 1U);
  clock_.Advance(30 * kNsPerS);
  harness.Settle();
  EXPECT_EQ(harness.shared->counters.open_connections.load(), 0U);
}

// A socket that is closed with bytes unread takes back what it has written.
TEST_F(TimedConnection, WaitsForTheClientToCloseOnceAllIsWritten) {
  for (const bool client_closes : {true, false}) {
    TransportHarness harness({}, WithClock());
    Http2Client& client = harness.Connect();
    harness.Settle();
    harness.io->Drain();
    harness.Settle();
    clock_.Advance(2 * kNsPerS);
    harness.Until([&] { return !client.Pump(); });
    EXPECT_EQ(harness.shared->counters.open_connections.load(), 1U);
    client.SendRaw("late");
    harness.Settle();
    EXPECT_EQ(harness.shared->counters.open_connections.load(), 1U);
    if (client_closes) {
      client.Close();
    } else {
      clock_.Advance(2 * kNsPerS);
    }
    harness.Settle();
    EXPECT_EQ(harness.shared->counters.open_connections.load(), 0U);
  }
}

// A socket that stays readable and of which nothing can be taken must not keep the thread busy.
TEST_F(TimedConnection, ListenerThatCannotBeServedRestsForAMoment) {
  TransportHarness harness({}, WithClock());
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
  const Socket other(ends[1]);
  ASSERT_EQ(write(other.fd(), "x", 1), 1);
  int asked = 0;
  harness.io->WatchListener(Socket(ends[0]), [&](int) {
    asked += 1;
    return asked > 1;
  });
  harness.Settle();
  EXPECT_EQ(asked, 1);
  clock_.Advance(kNsPerS);
  harness.Settle();
  EXPECT_GT(asked, 2);
}

TEST_F(TimedConnection, IsAskedToLeaveWhenItIsIdle) {
  TransportHarness harness({.max_connection_idle_ns = 10 * kNsPerS}, WithClock());
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call("/a.B/C", "", false);
  harness.Settle();
  clock_.Advance(15 * kNsPerS);
  harness.Settle();
  EXPECT_THAT(client.goaways, IsEmpty()) << "a call is under way";
  client.Reset(id);
  harness.Settle();
  clock_.Advance(11 * kNsPerS);
  harness.Settle();
  clock_.Advance(2 * kNsPerS);
  harness.Until([&] { return !client.Pump(); });
}

}  // namespace
}  // namespace penstock
