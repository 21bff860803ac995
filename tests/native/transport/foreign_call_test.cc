#include <gmock/gmock.h>

#include <cstring>

#include "transport_harness.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::Pair;
using Kind = CallEvent::Kind;

constexpr const char* kMethod = "/some.Service/Method";

Buffer BufferOf(std::string_view text) {
  Buffer buffer = HostPool::Shared().Allocate(text.size());
  if (!text.empty()) std::memcpy(buffer.data(), text.data(), text.size());
  return buffer;
}

TEST(ForeignCall, IsHandedOverWithItsMetadata) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  client.Call(kMethod, "", false,
              {{"x-key", "value"}, {"x-raw-bin", "AAEC,Aw"}, {"grpc-timeout", "1H"}});
  const CallEvent started = harness.NextEvent();
  ASSERT_EQ(started.kind, Kind::kStarted);
  EXPECT_EQ(started.call->facts().path, kMethod);
  EXPECT_EQ(started.call->facts().peer, "unix:");
  EXPECT_NE(started.call->facts().deadline_ns, kNever);
  EXPECT_THAT(started.call->facts().metadata,
              ElementsAre(Pair("x-key", "value"), Pair("x-raw-bin", std::string("\0\1\2", 3)),
                          Pair("x-raw-bin", "\3")));
}

TEST(ForeignCall, MessagesComeWhenTheyAreAskedFor) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  client.Call(kMethod, Framed("one") + Framed("") + Framed("three"));
  const auto call = harness.NextEvent().call;
  harness.Settle();
  ASSERT_TRUE(harness.events.empty());
  for (const char* expected : {"one", "", "three"}) {
    call->Read();
    const CallEvent event = harness.NextEvent();
    ASSERT_EQ(event.kind, Kind::kMessage);
    EXPECT_EQ(TextOf(event.message.span()), expected);
  }
  call->Read();
  EXPECT_EQ(harness.NextEvent().kind, Kind::kHalfClosed);
}

TEST(ForeignCall, AnswersWithMetadataMessagesAndTrailers) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kMethod, Framed("one"));
  const auto call = harness.NextEvent().call;
  call->SendMetadata({{"x-first", "1"}});
  call->Write(BufferOf("reply"));
  EXPECT_EQ(harness.NextEvent().kind, Kind::kWritten);
  call->Write(BufferOf(""));
  EXPECT_EQ(harness.NextEvent().kind, Kind::kWritten);
  call->End(Status(StatusCode::kAborted, "50% \xC3\xA9\n"),
            {{"x-last-bin", std::string("\0\xff", 2)}});
  const CallEvent closed = harness.NextEvent();
  EXPECT_EQ(closed.kind, Kind::kClosed);
  EXPECT_EQ(closed.end, CallEnd::kFinished);
  const auto& response = harness.Await(client, id);
  EXPECT_EQ(response["x-first"], "1");
  EXPECT_THAT(Unframed(response.body), ElementsAre("reply", ""));
  EXPECT_EQ(response.status(), "10");
  EXPECT_EQ(response.message(), "50%25 %C3%A9%0A");
  EXPECT_EQ(response["x-last-bin"], "AP8");
}

TEST(ForeignCall, HearsThatTheClientLeft) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kMethod, "", false);
  const auto call = harness.NextEvent().call;
  client.Reset(id);
  const CallEvent closed = harness.NextEvent();
  EXPECT_EQ(closed.kind, Kind::kClosed);
  EXPECT_EQ(closed.end, CallEnd::kCancelled);
  call->Read();  // all of it does nothing any more
  call->Write(BufferOf("x"));
  call->End(Status::Ok(), {});
  harness.Settle();
  EXPECT_TRUE(harness.events.empty());
}

TEST(ForeignCall, DeadlineAnswersTheClientAndTellsTheHandler) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kMethod, Framed("x"), true, {{"grpc-timeout", "30m"}});
  EXPECT_EQ(harness.NextEvent().kind, Kind::kStarted);
  const CallEvent closed = harness.NextEvent();
  EXPECT_EQ(closed.kind, Kind::kClosed);
  EXPECT_EQ(closed.end, CallEnd::kDeadlineExceeded);
  EXPECT_EQ(harness.Await(client, id).status(), "4");
}

TEST(ForeignCall, WriterWaitsForASlowReader) {
  TransportHarness harness;
  Http2Client& client = harness.Connect(/*window_bytes=*/10);
  client.SetReads(false);
  const int32_t id = client.Call(kMethod, "", false);
  const auto call = harness.NextEvent().call;
  call->Write(BufferOf("a message of more than ten bytes"));
  harness.Until([&] { return client.response(id).body.size() == 10; });
  harness.Settle();
  EXPECT_TRUE(harness.events.empty());
  client.SetReads(true);
  client.Consume(id, 10);
  EXPECT_EQ(harness.NextEvent().kind, Kind::kWritten);
}

TEST(ForeignCall, TokensOfInferenceAreVerifiedElsewhere) {
  TransportHarness harness({}, WithTokens());
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const Http2Client::Headers token = {{"authorization", "Bearer a.b.c"}};
  const int32_t unary = client.Call(kInfer, RowRequest({1}), true, token);
  const CallEvent asked = harness.NextEvent();
  ASSERT_EQ(asked.kind, Kind::kVerify);
  EXPECT_EQ(asked.call->caller()->credential, "a.b.c");
  Principal principal;
  principal.name = "p";
  principal.groups.set();
  harness.models.engine.admission().access().Remember(
      *asked.call->caller(), std::make_shared<const Principal>(principal), kNever);
  asked.call->Verified(Status::Ok());
  EXPECT_EQ(harness.Await(client, unary).status(), "0");
  const int32_t stream = client.Call(kStreamInfer, RowRequest({1}), true, token);
  EXPECT_EQ(harness.Await(client, stream).status(), "0");
  const int32_t nobody = client.Call(kInfer, RowRequest({1}));
  EXPECT_EQ(harness.Await(client, nobody).status(), "16");
}

TEST(ForeignCall, SecondMessageWhileATokenIsVerifiedIsOneTooMany) {
  TransportHarness harness({}, WithTokens());
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kInfer, RowRequest({1}) + RowRequest({2}) + RowRequest({3}), true,
                                 {{"authorization", "Bearer a.b.c"}});
  while (!client.response(id).is_closed) {
    harness.Step();
    if (harness.events.empty()) continue;
    harness.NextEvent().call->Verified(Status::Ok());
  }
  EXPECT_EQ(client.response(id).status(), "12");
  harness.Settle();
  EXPECT_EQ(harness.shared->counters.buffered_bytes.load(), 0U);
}

TEST(ForeignCall, FailedVerificationEndsTheCallWithItsReason) {
  TransportHarness harness({}, WithTokens());
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  for (const char* path : {kInfer, kStreamInfer}) {
    const int32_t id =
        client.Call(path, RowRequest({1}), true, {{"authorization", "Bearer a.b.c"}});
    harness.NextEvent().call->Verified(ResourceExhausted("later").WithRetryAfter(1000));
    EXPECT_EQ(harness.Await(client, id).status(), "8") << path;
    EXPECT_EQ(client.response(id)["grpc-retry-pushback-ms"], "1000");
  }
}

TEST(ForeignCall, MessagesThatNobodyReadsAreBounded) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  std::string messages;
  for (int i = 0; i < 70'000; ++i) messages += Framed("");
  const int32_t id = client.Call(kMethod, messages);
  EXPECT_EQ(harness.Await(client, id).status(), "8");
}

TEST(ForeignCall, TrailersThatCannotBeSentEndTheCallAllTheSame) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  for (const bool has_written : {false, true}) {
    const int32_t id = client.Call(kMethod, Framed("x"));
    const auto call = harness.NextEvent().call;
    if (has_written) {
      call->Write(BufferOf("reply"));
      EXPECT_EQ(harness.NextEvent().kind, Kind::kWritten);
    }
    call->End(Status::Ok(), {{"x-long", std::string(100'000, 'x')}});
    EXPECT_EQ(harness.NextEvent().kind, Kind::kClosed);
    EXPECT_EQ(harness.Await(client, id).error_code, NGHTTP2_INTERNAL_ERROR);
  }
}

TEST(ForeignCall, TokenThatNobodyVouchesForIsRefused) {
  TransportHarness harness({}, WithTokens());
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  for (const char* path : {kInfer, kStreamInfer}) {
    const int32_t id =
        client.Call(path, RowRequest({1}), true, {{"authorization", "Bearer a.b.c"}});
    while (!client.response(id).is_closed) {
      harness.Step();
      if (harness.events.empty()) continue;
      const CallEvent event = harness.NextEvent();
      if (event.kind == Kind::kVerify) event.call->Verified(Status::Ok());
    }
    EXPECT_EQ(client.response(id).status(), "16") << path;
  }
}

}  // namespace
}  // namespace penstock
