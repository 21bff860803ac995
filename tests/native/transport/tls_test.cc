// One connection's TLS. Both ends are driven by hand over a pair of sockets.

#include "transport/tls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tls_peers.h"
#include "transport/auth_context.h"

namespace penstock {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using Io = TlsSession::Io;

std::span<const uint8_t> BytesOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

class TlsTest : public testing::Test {
 protected:
  TlsTest()
      : authority_(MakeIdentity({.common_name = "root", .is_authority = true})),
        server_(MakeIdentity({.common_name = "server"}, &authority_)),
        client_(MakeIdentity({.common_name = "Zoë", .organization = "Acme, Inc"}, &authority_)) {}

  TlsFiles Files(const Identity& server) const {
    return {.certificate = directory_.Put("cert.pem", CertificatePem(server)),
            .key = directory_.Put("key.pem", KeyPem(server))};
  }
  TlsFiles MutualFiles(bool is_required) const {
    TlsFiles files = Files(server_);
    files.client_roots = directory_.Put("roots.pem", CertificatePem(authority_));
    files.require_client_certificate = is_required;
    return files;
  }

  void Start(const TlsFiles& files) {
    auto context = TlsContext::Create(files);
    ASSERT_TRUE(context.ok()) << context.status().ToString();
    context_ = *std::move(context);
  }
  void Start() { Start(Files(server_)); }

  std::unique_ptr<TlsSession> Accept(const TlsClient& client) {
    auto session = context_->Accept(client.server_fd());
    EXPECT_TRUE(session.ok()) << session.status().ToString();
    return *std::move(session);
  }

  static std::string Read(TlsSession& session, size_t up_to, Io expected = Io::kDone) {
    std::vector<uint8_t> bytes(up_to);
    size_t n = 0;
    EXPECT_EQ(session.Read(bytes, &n), expected);
    return {bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(n)};
  }

  TemporaryDirectory directory_;
  const Identity authority_;
  const Identity server_;
  const Identity client_;
  std::unique_ptr<TlsContext> context_;
};

TEST_F(TlsTest, BothVersions_AgreeOnHttp2AndCarryBytes) {
  Start();
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client({.trusts = &authority_, .max_version = version});
    const auto session = Accept(client);
    ASSERT_EQ(client.Shake(*session), Io::kDone) << session->last_error();
    EXPECT_EQ(SSL_version(client.ssl()), version);
    EXPECT_EQ(session->Handshake(), Io::kDone);
    client.Write("ping");
    EXPECT_EQ(Read(*session, 100), "ping");
    EXPECT_EQ(Read(*session, 100, Io::kWantRead), "");
    size_t n = 0;
    EXPECT_EQ(session->Write(BytesOf("pong"), &n), Io::kDone);
    EXPECT_EQ(n, 4U);
    EXPECT_EQ(client.ReadAll(), std::pair(std::string("pong"), SSL_ERROR_WANT_READ));
    EXPECT_EQ(session->peer_common_name(), "");
    EXPECT_EQ(session->peer_subject(), "");
  }
}

TEST_F(TlsTest, OlderVersions_AreRefused) {
  Start();
  TlsClient client({.max_version = TLS1_1_VERSION});
  const auto session = Accept(client);
  EXPECT_EQ(client.Shake(*session), Io::kError);
  EXPECT_THAT(session->last_error(), HasSubstr("protocol"));
}

TEST_F(TlsTest, ClientWithoutHttp2_IsRefused) {
  Start();
  for (const std::string_view alpn : {"", "\x08http/1.1"}) {
    TlsClient client({.alpn = alpn});
    const auto session = Accept(client);
    EXPECT_EQ(client.Shake(*session), Io::kError) << alpn;
    EXPECT_THAT(session->last_error(), AnyOf(HasSubstr("ALPN"), HasSubstr("application protocol")));
  }
}

TEST_F(TlsTest, Http2AmongOthers_IsChosen) {
  Start();
  TlsClient client({.alpn = "\x08http/1.1\x02h2"});
  const auto session = Accept(client);
  EXPECT_EQ(client.Shake(*session), Io::kDone);
}

TEST_F(TlsTest, RequiredClientCertificate_NamesItsOwner) {
  Start(MutualFiles(true));
  TlsClient client({.trusts = &authority_, .shows = &client_});
  const auto session = Accept(client);
  ASSERT_EQ(client.Shake(*session), Io::kDone) << session->last_error();
  EXPECT_EQ(session->peer_common_name(), "Zoë");
  EXPECT_EQ(session->peer_subject(), "CN=Zo\\C3\\AB,O=Acme\\, Inc");
}

TEST_F(TlsTest, ClientCertificate_IsToldInGrpcsWords) {
  Start(MutualFiles(true));
  const Identity many =
      MakeIdentity({.common_name = "team",
                    .alternative_names =
                        "DNS:a.example,URI:spiffe://x/y,IP:10.0.0.1,IP:::1,email:m@x.y,RID:1.2.3"},
                   &authority_);
  TlsClient client({.trusts = &authority_, .shows = &many});
  const auto session = Accept(client);
  ASSERT_EQ(client.Shake(*session), Io::kDone) << session->last_error();
  const std::string name = "x509_subject_alternative_name";
  const AuthContext expected = {{"transport_security_type", "ssl"},
                                {"x509_subject", "CN=team"},
                                {"x509_common_name", "team"},
                                {"x509_pem_cert", CertificatePem(many)},
                                {name, "a.example"},
                                {"peer_dns", "a.example"},
                                {name, "spiffe://x/y"},
                                {"peer_uri", "spiffe://x/y"},
                                {name, "10.0.0.1"},
                                {"peer_ip", "10.0.0.1"},
                                {name, "::1"},
                                {"peer_ip", "::1"},
                                {name, "m@x.y"},
                                {"peer_email", "m@x.y"},
                                {name, "other types of SAN"},
                                {"security_level", "TSI_PRIVACY_AND_INTEGRITY"},
                                {"ssl_session_reused", "false"}};
  EXPECT_EQ(*AuthContextOf(*session), expected);
}

TEST_F(TlsTest, ClientWithoutACertificate_HasTheTypeOnly) {
  Start();
  TlsClient client;
  const auto session = Accept(client);
  ASSERT_EQ(client.Shake(*session), Io::kDone);
  const AuthContext expected = {{"transport_security_type", "ssl"},
                                {"security_level", "TSI_PRIVACY_AND_INTEGRITY"},
                                {"ssl_session_reused", "false"}};
  EXPECT_EQ(*AuthContextOf(*session), expected);
}

TEST_F(TlsTest, RequiredClientCertificate_ThatWillNotDoIsRefused) {
  Start(MutualFiles(true));
  const Identity stranger = MakeIdentity({.common_name = "stranger"});
  const Identity expired = MakeIdentity({.common_name = "late", .valid_s = -60}, &authority_);
  const Identity authority_by_itself =
      MakeIdentity({.common_name = "below"}, &client_);  // whose certificate signs nothing
  for (const Identity* shown :
       {static_cast<const Identity*>(nullptr), &stranger, &expired, &authority_by_itself}) {
    for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
      TlsClient client({.shows = shown, .max_version = version});
      const auto session = Accept(client);
      EXPECT_EQ(client.Shake(*session), Io::kError);
      EXPECT_THAT(session->last_error(), HasSubstr("certificate"));
      EXPECT_EQ(session->Shutdown(), Io::kDone);
    }
  }
}

TEST_F(TlsTest, ClientCertificateThatIsOnlyAskedFor_MayBeMissingButNotWrong) {
  Start(MutualFiles(false));
  TlsClient without;
  const auto nobody = Accept(without);
  EXPECT_EQ(without.Shake(*nobody), Io::kDone);
  EXPECT_EQ(nobody->peer_common_name(), "");

  TlsClient with({.shows = &client_});
  const auto somebody = Accept(with);
  EXPECT_EQ(with.Shake(*somebody), Io::kDone);
  EXPECT_EQ(somebody->peer_common_name(), "Zoë");

  const Identity stranger = MakeIdentity({.common_name = "stranger"});
  TlsClient wrong({.shows = &stranger});
  EXPECT_EQ(wrong.Shake(*Accept(wrong)), Io::kError);
}

TEST_F(TlsTest, ExpiredServerCertificate_IsTheClientsMatter) {
  const Identity expired = MakeIdentity({.common_name = "old", .valid_s = -60}, &authority_);
  Start(Files(expired));
  TlsClient careless;
  EXPECT_EQ(careless.Shake(*Accept(careless)), Io::kDone);
  TlsClient careful({.trusts = &authority_});
  const auto session = Accept(careful);
  EXPECT_EQ(careful.Shake(*session), Io::kError);
  EXPECT_THAT(session->last_error(), HasSubstr("alert certificate expired"));
}

TEST_F(TlsTest, Intermediates_AreSent) {
  const Identity between =
      MakeIdentity({.common_name = "between", .is_authority = true}, &authority_);
  const Identity leaf = MakeIdentity({.common_name = "leaf"}, &between);
  Start({.certificate = directory_.Put("chain.pem", CertificatePem(leaf) + CertificatePem(between)),
         .key = directory_.Put("leaf.key", KeyPem(leaf))});
  TlsClient client({.trusts = &authority_});
  EXPECT_EQ(client.Shake(*Accept(client)), Io::kDone);
  EXPECT_EQ(client.ServerName(), "leaf");
}

TEST_F(TlsTest, Sessions_AreNotResumed) {
  Start(MutualFiles(true));
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient first({.shows = &client_, .max_version = version});
    ASSERT_EQ(first.Shake(*Accept(first)), Io::kDone);
    SSL_shutdown(first.ssl());  // a session that just breaks off is not resumed anyway
    const std::shared_ptr<SSL_SESSION> known(SSL_get1_session(first.ssl()), SSL_SESSION_free);
    TlsClient second({.shows = &client_, .max_version = version, .resumes = known.get()});
    ASSERT_EQ(second.Shake(*Accept(second)), Io::kDone);
    EXPECT_EQ(SSL_session_reused(second.ssl()), 0);
  }
}

TEST_F(TlsTest, WriteToASlowReader_WantsToWriteAndGoesOnFromElsewhere) {
  Start();
  TlsClient client;
  const auto session = Accept(client);
  ASSERT_EQ(client.Shake(*session), Io::kDone);
  std::string all(8 << 20, '\0');
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<char>(i * 31 >> 7U);
  std::string came;
  size_t written = 0;
  bool has_waited = false;
  while (written < all.size()) {
    const std::string elsewhere = all.substr(written, 200'000);  // what is left, in other memory
    size_t n = 0;
    const Io io = session->Write(BytesOf(elsewhere), &n);
    ASSERT_THAT(io, AnyOf(Io::kDone, Io::kWantWrite)) << session->last_error();
    written += n;
    if (io == Io::kDone) continue;
    has_waited = true;
    EXPECT_EQ(n, 0U);
    came += client.ReadAll().first;
  }
  came += client.ReadAll().first;
  EXPECT_TRUE(has_waited);
  EXPECT_EQ(came, all);
}

TEST_F(TlsTest, BytesThatTheSessionHolds_ArePending) {
  Start();
  TlsClient client;
  const auto session = Accept(client);
  ASSERT_EQ(client.Shake(*session), Io::kDone);
  EXPECT_EQ(Read(*session, 1, Io::kWantRead), "");
  EXPECT_FALSE(session->has_pending());
  client.Write("ab");
  client.Write("cd");  // a record of its own
  EXPECT_EQ(Read(*session, 1), "a");
  EXPECT_TRUE(session->has_pending());
  EXPECT_EQ(Read(*session, 9), "b");
  EXPECT_TRUE(session->has_pending());
  EXPECT_EQ(Read(*session, 9), "cd");
  EXPECT_EQ(Read(*session, 9, Io::kWantRead), "");
  EXPECT_FALSE(session->has_pending());
}

TEST_F(TlsTest, ClientThatClosesWhileShakingHands_IsClosed) {
  Start();
  TlsClient at_once;
  const auto untouched = Accept(at_once);
  at_once.Close();
  EXPECT_EQ(untouched->Handshake(), Io::kClosed);

  TlsClient half_way;
  const auto session = Accept(half_way);
  SSL_do_handshake(half_way.ssl());
  EXPECT_EQ(session->Handshake(), Io::kWantRead);
  half_way.Close();
  EXPECT_EQ(session->Handshake(), Io::kClosed);
  EXPECT_EQ(session->Shutdown(), Io::kDone);
}

TEST_F(TlsTest, ClientThatSaysGoodbye_IsClosedAndCanBeAnswered) {
  Start();
  TlsClient client;
  const auto session = Accept(client);
  ASSERT_EQ(client.Shake(*session), Io::kDone);
  client.Write("last words");
  EXPECT_EQ(SSL_shutdown(client.ssl()), 0);
  EXPECT_EQ(Read(*session, 100), "last words");
  EXPECT_EQ(Read(*session, 100, Io::kClosed), "");
  EXPECT_EQ(session->last_error(), "");
  EXPECT_EQ(session->Shutdown(), Io::kDone);
  EXPECT_EQ(SSL_shutdown(client.ssl()), 1);
}

TEST_F(TlsTest, ClientThatIsGone_IsClosedWithoutASignal) {
  Start();
  TlsClient client;
  const auto session = Accept(client);
  ASSERT_EQ(client.Shake(*session), Io::kDone);
  client.Close();
  size_t n = 0;
  EXPECT_EQ(session->Write(BytesOf("to nobody"), &n), Io::kClosed);  // SIGPIPE would end the test
  EXPECT_EQ(session->Shutdown(), Io::kDone);
  EXPECT_EQ(Read(*session, 100, Io::kClosed), "");
}

TEST_F(TlsTest, Shutdown_SaysGoodbyeAndDoesNotWait) {
  Start();
  TlsClient client;
  const auto session = Accept(client);
  EXPECT_EQ(session->Shutdown(), Io::kDone);  // nothing to say before the handshake
  ASSERT_EQ(client.Shake(*session), Io::kDone);
  EXPECT_EQ(session->Shutdown(), Io::kDone);
  EXPECT_EQ(client.ReadAll(), std::pair(std::string(), SSL_ERROR_ZERO_RETURN));
  EXPECT_EQ(session->Shutdown(), Io::kWantRead);  // only the client's goodbye is missing
}

TEST_F(TlsTest, WhatIsNoTls_IsAnError) {
  Start();
  for (const std::string& text :
       {std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), std::string("GET / HTTP/1.1\r\n\r\n"),
        std::string(500, '\xff'), std::string("\x16\x03\x01\xff\xff", 5) + std::string(500, 'x')}) {
    TlsClient client;
    const auto session = Accept(client);
    ASSERT_EQ(write(client.fd(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
    EXPECT_EQ(session->Handshake(), Io::kError) << text;
    EXPECT_NE(session->last_error(), "");
    EXPECT_EQ(session->Shutdown(), Io::kDone);
  }
}

TEST_F(TlsTest, GarbageAmongRecords_IsAnError) {
  Start();
  TlsClient client;
  const auto session = Accept(client);
  ASSERT_EQ(client.Shake(*session), Io::kDone);
  const std::string record = std::string("\x17\x03\x03\x00\x20", 5) + std::string(32, 'x');
  ASSERT_EQ(write(client.fd(), record.data(), record.size()), 37);
  EXPECT_EQ(Read(*session, 100, Io::kError), "");
  EXPECT_NE(session->last_error(), "");
}

TEST_F(TlsTest, ErrorsOfOthersOnTheThread_AreNotOurs) {
  Start();
  TlsClient client;
  const auto session = Accept(client);
  ASSERT_EQ(client.Shake(*session), Io::kDone);
  ERR_raise(ERR_LIB_SSL, ERR_R_INTERNAL_ERROR);
  EXPECT_EQ(Read(*session, 100, Io::kWantRead), "");
}

}  // namespace
}  // namespace penstock
