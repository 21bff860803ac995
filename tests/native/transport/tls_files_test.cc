// The files of TLS: what is refused at the start, what happens when they change.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tls_peers.h"
#include "transport/tls.h"

namespace penstock {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Io = TlsSession::Io;

class TlsFilesTest : public testing::Test {
 protected:
  TlsFilesTest() : files_(Put(MakeIdentity({.common_name = "first"}))) {}

  TlsFiles Put(const Identity& server) const {
    return {.certificate = directory_.Put("cert.pem", CertificatePem(server)),
            .key = directory_.Put("key.pem", KeyPem(server))};
  }

  void Start() {
    auto context = TlsContext::Create(files_);
    ASSERT_TRUE(context.ok()) << context.status().ToString();
    context_ = *std::move(context);
  }

  // The text that says why these files will not do.
  static std::string Refusal(const TlsFiles& files) {
    const Status status = TlsContext::Create(files).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return std::string(status.message());
  }

  // The name in the certificate that a new connection is shown.
  std::string NameShown() {
    TlsClient client;
    const auto session = context_->Accept(client.server_fd());
    EXPECT_TRUE(session.ok());
    EXPECT_EQ(client.Shake(**session), Io::kDone) << (*session)->last_error();
    return client.ServerName();
  }

  // That, and what was logged on the way.
  std::pair<std::string, std::string> NameAndLog() {
    testing::internal::CaptureStderr();
    std::string name = NameShown();
    return {std::move(name), testing::internal::GetCapturedStderr()};
  }

  TemporaryDirectory directory_;
  TlsFiles files_;
  std::unique_ptr<TlsContext> context_;
};

TEST_F(TlsFilesTest, MissingFile_IsNamed) {
  for (std::string TlsFiles::*path :
       {&TlsFiles::certificate, &TlsFiles::key, &TlsFiles::client_roots}) {
    TlsFiles files = files_;
    files.*path = "/nowhere/file.pem";
    EXPECT_EQ(Refusal(files), "cannot read /nowhere/file.pem: No such file or directory");
  }
}

TEST_F(TlsFilesTest, FilesWithoutWhatIsLookedFor_AreNamed) {
  for (const std::string& text : {std::string(), std::string("no PEM"), std::string("\0\xff", 2)}) {
    const std::string path = directory_.Put("other.pem", text);
    EXPECT_EQ(Refusal({.certificate = path, .key = files_.key}), path + " holds no certificate");
    EXPECT_THAT(Refusal({.certificate = files_.certificate, .key = path}),
                HasSubstr(path + " holds no private key"));
    TlsFiles mutual = files_;
    mutual.client_roots = path;
    EXPECT_EQ(Refusal(mutual), path + " holds no certificate");
  }
  EXPECT_EQ(Refusal({.certificate = files_.key, .key = files_.key}),
            files_.key + " holds no certificate");
}

TEST_F(TlsFilesTest, BrokenCertificate_IsNamed) {
  const Identity server = MakeIdentity({.common_name = "a"});
  std::string broken = CertificatePem(server);
  broken[broken.size() / 2] = '!';
  const std::string path = directory_.Put("broken.pem", CertificatePem(server) + broken);
  EXPECT_THAT(Refusal({.certificate = path, .key = files_.key}),
              HasSubstr(path + " holds a certificate that cannot be read"));
}

TEST_F(TlsFilesTest, KeyOfAnotherCertificate_IsRefused) {
  const std::string key = directory_.Put("other.key", KeyPem(MakeIdentity({.common_name = "b"})));
  EXPECT_THAT(Refusal({.certificate = files_.certificate, .key = key}),
              AllOf(HasSubstr(files_.certificate), HasSubstr(key), HasSubstr("no pair")));
}

TEST_F(TlsFilesTest, KeyWithAPassword_IsRefusedAndNobodyIsAsked) {
  const Identity server = MakeIdentity({.common_name = "a"});
  TlsFiles files = Put(server);
  for (const char* password : {"secret", ""}) {
    files.key = directory_.Put("locked.key", KeyPem(server, password));
    EXPECT_EQ(Refusal(files), files.key + " has a password; a key without one is needed");
  }
}

TEST_F(TlsFilesTest, FileWithoutEnd_IsRefused) {
  EXPECT_THAT(Refusal({.certificate = "/dev/zero", .key = files_.key}), HasSubstr("larger than"));
}

TEST_F(TlsFilesTest, RequiredClientCertificatesWithoutRoots_AreRefused) {
  files_.require_client_certificate = true;
  EXPECT_THAT(Refusal(files_), HasSubstr("client certificates are required"));
}

TEST_F(TlsFilesTest, NewFiles_AreUsedFromTheNextConnectionOn) {
  Start();
  TlsClient before;
  const auto session = context_->Accept(before.server_fd());
  ASSERT_TRUE(session.ok());
  Put(MakeIdentity({.common_name = "second"}));
  const auto [name, log] = NameAndLog();
  EXPECT_EQ(name, "second");
  EXPECT_THAT(log, HasSubstr("the certificate of the gRPC port was read anew"));
  EXPECT_EQ(before.Shake(**session), Io::kDone);  // begun with the old ones, ended with them
  EXPECT_EQ(before.ServerName(), "first");
  EXPECT_THAT(NameAndLog().second, IsEmpty());
}

TEST_F(TlsFilesTest, HalfAPair_LeavesTheOldOneInUseUntilTheRestIsThere) {
  Start();
  const Identity second = MakeIdentity({.common_name = "second"});
  directory_.Put("cert.pem", CertificatePem(second));
  const auto [name, log] = NameAndLog();
  EXPECT_EQ(name, "first");
  EXPECT_THAT(log, AllOf(HasSubstr("stays in use"), HasSubstr("no pair")));
  EXPECT_THAT(NameAndLog().second, IsEmpty());  // once for each change
  directory_.Put("key.pem", KeyPem(second));
  EXPECT_EQ(NameShown(), "second");
}

TEST_F(TlsFilesTest, FileThatWentAway_LeavesTheOldOneInUse) {
  Start();
  std::filesystem::remove(files_.key);
  const auto [name, log] = NameAndLog();
  EXPECT_EQ(name, "first");
  EXPECT_THAT(log, HasSubstr("cannot read " + files_.key));
  EXPECT_EQ(NameShown(), "first");
  Put(MakeIdentity({.common_name = "second"}));
  EXPECT_EQ(NameShown(), "second");
}

TEST_F(TlsFilesTest, FileRewrittenInPlace_IsReadAnew) {
  Start();
  const Identity second = MakeIdentity({.common_name = "second one"});  // of another size
  std::ofstream(files_.certificate) << CertificatePem(second);
  std::ofstream(files_.key) << KeyPem(second);
  EXPECT_EQ(NameShown(), "second one");
}

TEST_F(TlsFilesTest, NewClientRoots_DecideWhoComesIn) {
  const Identity old_root = MakeIdentity({.common_name = "old", .is_authority = true});
  const Identity new_root = MakeIdentity({.common_name = "new", .is_authority = true});
  const Identity old_client = MakeIdentity({.common_name = "a"}, &old_root);
  const Identity new_client = MakeIdentity({.common_name = "b"}, &new_root);
  files_.client_roots = directory_.Put("roots.pem", CertificatePem(old_root));
  files_.require_client_certificate = true;
  Start();
  const auto comes_in = [this](const Identity& shown) {
    TlsClient client({.shows = &shown});
    return client.Shake(**context_->Accept(client.server_fd())) == Io::kDone;
  };
  EXPECT_TRUE(comes_in(old_client));
  EXPECT_FALSE(comes_in(new_client));
  directory_.Put("roots.pem", CertificatePem(new_root));
  EXPECT_FALSE(comes_in(old_client));
  EXPECT_TRUE(comes_in(new_client));
  directory_.Put("roots.pem", CertificatePem(old_root) + CertificatePem(new_root));
  EXPECT_TRUE(comes_in(old_client));
  EXPECT_TRUE(comes_in(new_client));
}

TEST_F(TlsFilesTest, Threads_AcceptWhileFilesChange) {
  Start();
  std::atomic<int> shaken = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int turn = 0; turn < 30; ++turn) {
        TlsClient client;
        auto session = context_->Accept(client.server_fd());
        if (session.ok() && client.Shake(**session) == Io::kDone) ++shaken;
      }
    });
  }
  for (int i = 0; i < 20; ++i) Put(MakeIdentity({.common_name = "next"}));
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(shaken, 90);
  EXPECT_EQ(NameShown(), "next");
}

}  // namespace
}  // namespace penstock
