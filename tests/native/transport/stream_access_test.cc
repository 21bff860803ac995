// Tokens that are verified anew while their stream is open, and connections told apart.

#include <gmock/gmock.h>

#include <memory>
#include <string>

#include "transport_harness.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using Kind = CallEvent::Kind;

const Http2Client::Headers kToken = {{"authorization", "Bearer a.b.c"}};

Verdict Good() {
  Principal principal;
  principal.name = "p";
  principal.groups.set();
  return std::make_shared<const Principal>(principal);
}

// As the event loop has a token verified: asked for, then told, then the call.
Status Verify(TransportHarness& harness, const CallEvent& event, Verdict verdict) {
  Admission& admission = harness.models.engine.admission();
  const Status status = admission.AdmitVerification(*event.call->caller());
  if (status.ok()) admission.access().Remember(*event.call->caller(), std::move(verdict), kNever);
  event.call->Verified(status);
  return status;
}

TEST(StreamAccess, RequestOverTheRateIsAReplyAlsoWhereTrustInTheTokenHasLapsed) {
  Engine::Options options = WithTokens();
  options.access.connection_rate = {.per_second = 0.001, .burst = 2};
  TransportHarness harness({}, options);
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kStreamInfer, "", /*ends=*/false, kToken);
  ASSERT_TRUE(Verify(harness, harness.NextEvent(), Good()).ok());
  client.Send(id, RowRequest({0}));
  for (int i = 1; i < 4; ++i) {
    harness.Settle();
    harness.models.engine.admission().access().ForgetTokens();
    client.Send(id, RowRequest({static_cast<float>(i)}), /*ends=*/i == 3);
    const CallEvent event = harness.NextEvent();
    ASSERT_EQ(event.kind, Kind::kVerify);
    EXPECT_TRUE(Verify(harness, event, Good()).ok());
  }
  const auto& response = harness.Await(client, id);
  EXPECT_EQ(response.status(), "0") << response.message();
  EXPECT_THAT(Unframed(response.body),
              ElementsAre(EndsWith(RawOf<float>({0})), EndsWith(RawOf<float>({1})),
                          HasSubstr("this connection is over its limit"),
                          HasSubstr("this connection is over its limit")));
}

TEST(StreamAccess, JunkOfOneClientOfAUnixSocketHoldsUpNoOther) {
  TransportHarness harness({}, WithTokens());
  harness.models.Serve(IdentitySpec());
  Http2Client& junk = harness.Connect();
  Http2Client& other = harness.Connect();
  bool is_refused = false;
  for (int i = 0; i < 10'000 && !is_refused; ++i) {
    const int32_t id = junk.Call(kInfer, RowRequest({1}), true,
                                 {{"authorization", "Bearer " + std::to_string(i)}});
    is_refused = !Verify(harness, harness.NextEvent(), Unauthenticated("junk")).ok();
    EXPECT_EQ(harness.Await(junk, id).status(), is_refused ? "8" : "16");
  }
  EXPECT_TRUE(is_refused);
  const int32_t id = other.Call(kInfer, RowRequest({1}), true, kToken);
  EXPECT_TRUE(Verify(harness, harness.NextEvent(), Good()).ok());
  EXPECT_EQ(harness.Await(other, id).status(), "0");
}

TEST(StreamAccess, CallsOfOneConnectionHaveItsNameAndNoOtherHas) {
  TransportHarness harness;
  const auto facts_of = [&](Http2Client& client) {
    client.Call("/a.B/C", Framed("x"));
    CallHandle::Facts facts;
    while (facts.connection.empty()) {
      const CallEvent event = harness.NextEvent();
      if (event.kind == Kind::kStarted) facts = event.call->facts();
    }
    return facts;
  };
  Http2Client& one = harness.Connect();
  Http2Client& other = harness.Connect();
  const CallHandle::Facts first = facts_of(one);
  EXPECT_EQ(first.connection, facts_of(one).connection);
  EXPECT_NE(first.connection, facts_of(other).connection);
  EXPECT_EQ(first.peer, facts_of(other).peer);
}

}  // namespace
}  // namespace penstock
