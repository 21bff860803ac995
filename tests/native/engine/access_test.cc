// Admission's half that knows callers: restricted groups, keys, tokens, rates.

#include "engine/access.h"

#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "engine/admission.h"
#include "testing/fake_clock.h"

namespace penstock {
namespace {

using Headers = std::vector<CallHeader>;

PrincipalRef Key(const std::string& name, std::vector<CallGroup> groups, RateLimit rate = {},
                 size_t max_request_bytes = 0) {
  Principal principal{name, {}, rate, max_request_bytes};
  for (const CallGroup group : groups) principal.groups.set(static_cast<size_t>(group));
  return std::make_shared<const Principal>(principal);
}

AccessPolicy WithKeys() {
  AccessPolicy policy;
  policy.needs_identity = true;
  return policy;
}

AccessPolicy WithTokens() {
  AccessPolicy policy = WithKeys();
  policy.has_tokens = true;
  return policy;
}

class AccessTest : public testing::Test {
 protected:
  // The outcome of one small message of one call.
  Status Call(Admission& admission, const Headers& headers, CallGroup group = CallGroup::kMetadata,
              size_t size_bytes = 1, std::string_view connection = "ipv4:127.0.0.1:5") {
    const Caller caller = admission.access().Identify(headers, connection);
    return admission.Admit(&caller, group, size_bytes);
  }

  FakeClock clock_;
};

TEST_F(AccessTest, NoPolicy_ReadsNoHeadersAndLetsAllIn) {
  Admission admission({}, {}, clock_);
  EXPECT_FALSE(admission.access().is_active());
  const Caller caller = admission.access().Identify(Headers{{"x-api-key", "k"}}, "c");
  EXPECT_FALSE(caller.has_credential);
  EXPECT_TRUE(admission.Admit(nullptr, CallGroup::kModelRepository, 1).ok());
}

TEST_F(AccessTest, RestrictedGroup_WantsItsHeaderWithItsValue) {
  AccessPolicy policy;
  policy.restricted[static_cast<size_t>(CallGroup::kModelRepository)] =
      RestrictedGroup{"triton-grpc-protocol-admin", "secret"};
  Admission admission({}, policy, clock_);
  const CallGroup group = CallGroup::kModelRepository;
  EXPECT_TRUE(Call(admission, {{"triton-grpc-protocol-admin", "secret"}}, group).ok());
  for (const Headers& headers : {Headers{}, Headers{{"triton-grpc-protocol-admin", "Secret"}},
                                 Headers{{"triton-grpc-protocol-other", "secret"}}}) {
    const Status status = Call(admission, headers, group);
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
    EXPECT_EQ(status.message(),
              "This protocol is restricted, expecting header 'triton-grpc-protocol-admin'");
  }
  EXPECT_EQ(admission.Admit(nullptr, group, 1).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(Call(admission, {}, CallGroup::kHealth).ok());
  EXPECT_EQ(admission.refused(Refusal::kRestricted), 4U);
}

TEST_F(AccessTest, Keys_OpenTheirGroupsAndNoOthers) {
  Admission admission({}, WithKeys(), clock_);
  admission.access().SetKeys({{Sha256("k1"), Key("key 'one'", {CallGroup::kMetadata})}});
  EXPECT_TRUE(Call(admission, {{"x-api-key", "k1"}}).ok());
  EXPECT_TRUE(Call(admission, {{"authorization", "Bearer k1"}}).ok());
  EXPECT_TRUE(Call(admission, {{"authorization", "bearer k1"}}).ok());
  const Status status = Call(admission, {{"x-api-key", "k1"}}, CallGroup::kModelRepository);
  EXPECT_EQ(status.code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(status.message(), "key 'one' may not call the group 'model-repository' of this server");
  EXPECT_EQ(admission.refused(Refusal::kPermissionDenied), 1U);
}

TEST_F(AccessTest, BadCredentials_AreUnauthenticatedAndNotEchoed) {
  Admission admission({}, WithKeys(), clock_);
  admission.access().SetKeys({{Sha256("k1"), Key("key 'one'", {CallGroup::kMetadata})}});
  const std::vector<std::pair<Headers, std::string>> cases = {
      {{}, "send a key or token"},
      {{{"x-api-key", "guess"}}, "is not known to this server"},
      {{{"x-api-key", ""}}, "is not known to this server"},
      {{{"authorization", "Basic azE6"}}, "is not 'Bearer'"},
      {{{"authorization", "Bearer "}}, "is not 'Bearer'"},
      {{{"x-api-key", "k1"}, {"x-api-key", "k1"}}, "more than one header 'x-api-key'"},
      {{{"x-api-key", "guess"}, {"authorization", "Bearer k1"}}, "is not known"},
  };
  for (const auto& [headers, text] : cases) {
    const Status status = Call(admission, headers);
    EXPECT_EQ(status.code(), StatusCode::kUnauthenticated);
    EXPECT_NE(status.message().find(text), std::string::npos) << status.message();
    EXPECT_EQ(status.message().find("guess"), std::string::npos);
  }
  EXPECT_EQ(admission.Admit(nullptr, CallGroup::kMetadata, 1).code(), StatusCode::kUnauthenticated);
  EXPECT_EQ(admission.refused(Refusal::kUnauthenticated), cases.size() + 1);
}

TEST_F(AccessTest, TheServerItself_IsAskedNothingAndCountsForNobody) {
  AccessPolicy policy = WithKeys();
  policy.connection_rate = RateLimit{1.0, 1.0};
  Admission admission({}, policy, clock_);
  Caller server;
  server.is_server = true;
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(admission.Admit(&server, CallGroup::kMetadata, 1).ok());
  }
  EXPECT_FALSE(admission.Admit(nullptr, CallGroup::kMetadata, 1).ok());
}

TEST_F(AccessTest, OpenGroups_NeedNoKey) {
  AccessPolicy policy = WithKeys();
  policy.open_groups.set(static_cast<size_t>(CallGroup::kHealth));
  Admission admission({}, policy, clock_);
  EXPECT_TRUE(Call(admission, {}, CallGroup::kHealth).ok());
  EXPECT_EQ(Call(admission, {}).code(), StatusCode::kUnauthenticated);
}

TEST_F(AccessTest, KeyTakenBack_EndsCallsThatAreUnderWay) {
  Admission admission({}, WithKeys(), clock_);
  admission.access().SetKeys({{Sha256("k1"), Key("key 'one'", {CallGroup::kInference})}});
  const Caller stream = admission.access().Identify(Headers{{"x-api-key", "k1"}}, "c");
  EXPECT_TRUE(admission.Admit(&stream, CallGroup::kInference, 1).ok());
  admission.access().SetKeys({});
  EXPECT_EQ(admission.Admit(&stream, CallGroup::kInference, 1).code(),
            StatusCode::kUnauthenticated);
  EXPECT_EQ(admission.inflight(), 1U);
}

TEST_F(AccessTest, Token_IsLetInOnceVerifiedAndUntilItsTime) {
  Admission admission({}, WithTokens(), clock_);
  AccessControl& access = admission.access();
  const Caller caller = access.Identify(Headers{{"authorization", "Bearer t"}}, "c");
  EXPECT_EQ(caller.credential, "t");
  EXPECT_TRUE(access.NeedsVerification(caller, CallGroup::kInference));
  EXPECT_EQ(admission.Admit(&caller, CallGroup::kMetadata, 1).code(), StatusCode::kUnauthenticated);
  access.Remember(caller, Key("token of 'x'", {CallGroup::kMetadata}), clock_.NowNs() + kNsPerS);
  EXPECT_FALSE(access.NeedsVerification(caller, CallGroup::kInference));
  EXPECT_TRUE(admission.Admit(&caller, CallGroup::kMetadata, 1).ok());
  clock_.Advance(kNsPerS);
  EXPECT_TRUE(access.NeedsVerification(caller, CallGroup::kInference));
  EXPECT_FALSE(admission.Admit(&caller, CallGroup::kMetadata, 1).ok());
}

TEST_F(AccessTest, RefusedToken_IsAnsweredWithItsReason) {
  Admission admission({}, WithTokens(), clock_);
  AccessControl& access = admission.access();
  const Caller caller = access.Identify(Headers{{"authorization", "Bearer t"}}, "c");
  access.Remember(caller, Unavailable("no keys to verify with"), clock_.NowNs() + kNsPerS);
  EXPECT_FALSE(access.NeedsVerification(caller, CallGroup::kInference));
  const Status status = admission.Admit(&caller, CallGroup::kMetadata, 1);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "no keys to verify with");
  EXPECT_EQ(admission.refused(Refusal::kUnverified), 1U);
  access.ForgetTokens();
  EXPECT_TRUE(access.NeedsVerification(caller, CallGroup::kInference));
}

TEST_F(AccessTest, FloodOfBadTokens_PushesNoGoodOneOut) {
  AccessPolicy policy = WithTokens();
  policy.max_tokens = 1;
  policy.max_refused = 10;
  Admission admission({}, policy, clock_);
  AccessControl& access = admission.access();
  const Caller good = access.Identify(Headers{{"authorization", "Bearer good"}}, "c");
  access.Remember(good, Key("token of 'x'", {CallGroup::kMetadata}), kNever);
  for (int i = 0; i < 1000; ++i) {
    const std::string bearer = "Bearer bad" + std::to_string(i);
    access.Remember(access.Identify(Headers{{"authorization", bearer}}, "c"),
                    Unauthenticated("bad"), kNever);
  }
  EXPECT_TRUE(admission.Admit(&good, CallGroup::kMetadata, 1).ok());
}

TEST_F(AccessTest, ConnectionRate_IsPerConnectionAndSaysWhenToComeBack) {
  AccessPolicy policy;
  policy.connection_rate = {.per_second = 4, .burst = 2};
  Admission admission({}, policy, clock_);
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(Call(admission, {}).ok());
  const Status status = Call(admission, {});
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(
      status.message(),
      "this connection is over its limit of 4 calls per second (at most 2 at once); try again "
      "in 250 ms");
  EXPECT_EQ(status.retry_after_ms(), 250);
  EXPECT_EQ(admission.refused(Refusal::kConnectionRate), 1U);
  EXPECT_TRUE(Call(admission, {}, CallGroup::kMetadata, 1, "ipv4:127.0.0.1:6").ok());
  EXPECT_TRUE(Call(admission, {}, CallGroup::kHealth).ok());
  clock_.Advance(kNsPerS / 4);
  EXPECT_TRUE(Call(admission, {}).ok());
}

TEST_F(AccessTest, KeyRate_IsSharedByItsConnections) {
  Admission admission({}, WithKeys(), clock_);
  const RateLimit rate = {.per_second = 1, .burst = 1};
  admission.access().SetKeys({{Sha256("k1"), Key("key 'one'", {CallGroup::kInference}, rate)},
                              {Sha256("k2"), Key("key 'two'", {CallGroup::kInference}, rate)}});
  const auto infer = [&](const char* key, const char* connection) {
    return Call(admission, {{"x-api-key", key}}, CallGroup::kInference, 1, connection);
  };
  EXPECT_TRUE(infer("k1", "a").ok());
  const Status status = infer("k1", "b");
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(),
            "key 'one' is over its limit of 1 calls per second (at most 1 at once); try again in "
            "1000 ms");
  EXPECT_TRUE(infer("k2", "b").ok());
  EXPECT_EQ(admission.refused(Refusal::kKeyRate), 1U);
  EXPECT_EQ(admission.inflight(), 2U) << "a refused call holds no place";
}

TEST_F(AccessTest, KeySize_IsItsOwn) {
  Admission admission({.max_request_bytes = 100}, WithKeys(), clock_);
  admission.access().SetKeys({{Sha256("k1"), Key("key 'one'", {CallGroup::kMetadata}, {}, 10)}});
  EXPECT_TRUE(Call(admission, {{"x-api-key", "k1"}}, CallGroup::kMetadata, 10).ok());
  const Status status = Call(admission, {{"x-api-key", "k1"}}, CallGroup::kMetadata, 11);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "request of 11 bytes exceeds the limit of key 'one': 10 bytes");
  EXPECT_LT(status.retry_after_ms(), 0) << "it would never fit";
}

TEST_F(AccessTest, GuessesCountForTheirConnection) {
  AccessPolicy policy = WithKeys();
  policy.connection_rate = {.per_second = 1, .burst = 2};
  Admission admission({}, policy, clock_);
  const Caller caller = admission.access().Identify(Headers{{"x-api-key", "guess"}}, "c");
  EXPECT_EQ(admission.Admit(&caller, CallGroup::kMetadata, 1).code(), StatusCode::kUnauthenticated);
  EXPECT_EQ(admission.Authorize(&caller, CallGroup::kInference).code(),
            StatusCode::kUnauthenticated);
  EXPECT_EQ(admission.Admit(&caller, CallGroup::kMetadata, 1).code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(admission.Authorize(&caller, CallGroup::kInference).code(),
            StatusCode::kResourceExhausted);
  EXPECT_EQ(admission.refused(Refusal::kConnectionRate), 2U);
}

TEST_F(AccessTest, TokenOfACallerThatNeedsNone_IsNotVerified) {
  AccessPolicy policy = WithTokens();
  policy.open_groups.set(static_cast<size_t>(CallGroup::kHealth));
  Admission admission({}, policy, clock_);
  const Caller caller =
      admission.access().Identify(Headers{{"authorization", "Bearer a.b.c"}}, "c");
  EXPECT_FALSE(admission.access().NeedsVerification(caller, CallGroup::kHealth));
  EXPECT_TRUE(admission.access().NeedsVerification(caller, CallGroup::kMetadata));
}

TEST_F(AccessTest, Authorize_TakesNoCallOutOfTheRates) {
  AccessPolicy policy;
  policy.connection_rate = {.per_second = 1, .burst = 1};
  Admission admission({}, policy, clock_);
  const Caller caller = admission.access().Identify(Headers{}, "c");
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(admission.Authorize(&caller, CallGroup::kInference).ok());
  }
  EXPECT_TRUE(admission.Admit(&caller, CallGroup::kInference, 1).ok());
}

TEST_F(AccessTest, KeysAndTokensChange_WhileCallsComeIn) {
  Admission admission({}, WithTokens(), clock_);
  AccessControl& access = admission.access();
  const auto key = Key("key 'one'", {CallGroup::kInference}, {.per_second = 1e6, .burst = 1e6});
  std::atomic<bool> is_over{false};
  std::vector<std::thread> callers;
  for (int t = 0; t < 3; ++t) {
    callers.emplace_back([&, t] {
      const std::string secret = t == 0 ? "k1" : "t" + std::to_string(t);
      const Caller caller = access.Identify(Headers{{"x-api-key", secret}}, secret);
      while (!is_over.load()) {
        if (access.NeedsVerification(caller, CallGroup::kInference))
          access.Remember(caller, key, kNever);
        if (admission.Admit(&caller, CallGroup::kInference, 1).ok()) admission.Release();
      }
    });
  }
  for (int i = 0; i < 200; ++i) {
    access.SetKeys(i % 2 == 0 ? DigestMap<PrincipalRef>{{Sha256("k1"), key}}
                              : DigestMap<PrincipalRef>{});
    access.ForgetTokens();
  }
  is_over.store(true);
  for (auto& caller : callers) caller.join();
  EXPECT_EQ(admission.inflight(), 0U);
}

TEST_F(AccessTest, BadTokens_UseUpTheirConnectionsVerifications) {
  Admission admission({}, WithTokens(), clock_);
  AccessControl& access = admission.access();
  const auto bearer = [&](const std::string& token, std::string_view connection) {
    const std::string header = "Bearer " + token;
    return access.Identify(Headers{{"authorization", header}}, connection);
  };
  for (int i = 0; i < kBadTokens.burst; ++i) {
    const Caller junk = bearer(std::to_string(i), "a");
    ASSERT_TRUE(admission.AdmitVerification(junk).ok()) << i;
    access.Remember(junk, Unauthenticated("junk"), kNever);
  }
  const Status status = admission.AdmitVerification(bearer("more", "a"));
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(),
            "this connection brings too many tokens that are not good; try again in 20 ms");
  EXPECT_EQ(status.retry_after_ms(), 20);
  EXPECT_EQ(admission.refused(Refusal::kUnverified), 1U);
  EXPECT_TRUE(admission.AdmitVerification(bearer("more", "b")).ok());
  clock_.Advance(20 * kNsPerS / 1000);
  EXPECT_TRUE(admission.AdmitVerification(bearer("more", "a")).ok());
}

TEST_F(AccessTest, GoodTokensAndThoseThatNobodyCanVerify_CountForNothing) {
  Admission admission({}, WithTokens(), clock_);
  AccessControl& access = admission.access();
  for (int i = 0; i < 10 * kBadTokens.burst; ++i) {
    const std::string header = "Bearer " + std::to_string(i);
    const Caller caller = access.Identify(Headers{{"authorization", header}}, "a");
    ASSERT_TRUE(admission.AdmitVerification(caller).ok()) << i;
    access.Remember(caller, Unavailable("no keys to verify with"), kNever);
    access.Remember(caller, Key("token of 'x'", {CallGroup::kMetadata}), kNever);
  }
}

TEST_F(AccessTest, BadTokensOfAConnectionThatHasNoNameOfItsOwn_CountForNobody) {
  Admission admission({}, WithTokens(), clock_);
  for (const char* connection : {"unix:", ""}) {
    for (int i = 0; i < 2 * kBadTokens.burst; ++i) {
      const std::string header = "Bearer " + std::to_string(i);
      const Caller junk =
          admission.access().Identify(Headers{{"authorization", header}}, connection);
      ASSERT_TRUE(admission.AdmitVerification(junk).ok()) << i;
      admission.access().Remember(junk, Unauthenticated("junk"), kNever);
    }
  }
}

// What is over the rate is refused by its message, as for any other caller.
TEST_F(AccessTest, TokenOfAConnectionOverItsRate_IsVerifiedAllTheSame) {
  AccessPolicy policy = WithTokens();
  policy.connection_rate = {.per_second = 1, .burst = 2};
  Admission admission({}, policy, clock_);
  const Caller caller = admission.access().Identify(Headers{{"authorization", "Bearer t"}}, "c");
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(admission.AdmitVerification(caller).ok());
    EXPECT_FALSE(admission.Admit(&caller, CallGroup::kMetadata, 1).ok());
  }
  EXPECT_TRUE(admission.AdmitVerification(caller).ok());
  const Status status = admission.Admit(&caller, CallGroup::kMetadata, 1);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(status.retry_after_ms(), 1000);
  EXPECT_EQ(admission.refused(Refusal::kConnectionRate), 1U);
}

}  // namespace
}  // namespace penstock
