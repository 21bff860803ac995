// Certificates made on the spot, and the client's side of a TLS connection, for tests.

#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "transport/tls.h"

namespace penstock {

inline void Require(bool condition) {
  if (!condition) throw std::logic_error("OpenSSL did not do what the test needs");
}

// A certificate with its key.
struct Identity {
  std::shared_ptr<X509> certificate;
  std::shared_ptr<EVP_PKEY> key;
};

struct IdentityOptions {
  std::string common_name;
  std::string organization = {};
  bool is_authority = false;
  long valid_s = 3600;                      // from an hour ago on; negative = over
  const char* alternative_names = nullptr;  // as OpenSSL's configuration has them
};

inline void AddExtension(X509* certificate, int nid, const char* value) {
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
  Require(extension != nullptr && X509_add_ext(certificate, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

// By `issuer`; by itself where that is null.
inline Identity MakeIdentity(const IdentityOptions& options, const Identity* issuer = nullptr) {
  static long serial = 0;
  Identity made{{X509_new(), X509_free}, {EVP_EC_gen("P-256"), EVP_PKEY_free}};
  X509* certificate = made.certificate.get();
  Require(certificate != nullptr && made.key != nullptr);
  X509_set_version(certificate, X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), ++serial);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -7200);
  X509_gmtime_adj(X509_getm_notAfter(certificate), options.valid_s);
  X509_set_pubkey(certificate, made.key.get());
  X509_NAME* name = X509_get_subject_name(certificate);
  for (const auto& [field, text] :
       {std::pair{"O", options.organization}, std::pair{"CN", options.common_name}}) {
    if (text.empty()) continue;
    Require(X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8,
                                       reinterpret_cast<const unsigned char*>(text.data()),
                                       static_cast<int>(text.size()), -1, 0) == 1);
  }
  const Identity& by = issuer != nullptr ? *issuer : made;
  X509_set_issuer_name(certificate, X509_get_subject_name(by.certificate.get()));
  if (options.alternative_names != nullptr) {
    AddExtension(certificate, NID_subject_alt_name, options.alternative_names);
  }
  if (options.is_authority) AddExtension(certificate, NID_basic_constraints, "critical,CA:TRUE");
  Require(X509_sign(certificate, by.key.get(), EVP_sha256()) > 0);
  return made;
}

template <typename Write>
std::string PemOf(Write write) {
  BIO* bio = BIO_new(BIO_s_mem());
  Require(write(bio) == 1);
  const char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

inline std::string CertificatePem(const Identity& identity) {
  return PemOf([&](BIO* bio) { return PEM_write_bio_X509(bio, identity.certificate.get()); });
}

// Encrypted where there is a password.
inline std::string KeyPem(const Identity& identity, const char* password = nullptr) {
  return PemOf([&](BIO* bio) {
    return PEM_write_bio_PrivateKey(bio, identity.key.get(),
                                    password != nullptr ? EVP_aes_256_cbc() : nullptr, nullptr, 0,
                                    nullptr, const_cast<char*>(password));
  });
}

// A directory that goes with its object.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "penstock-tls-XXXXXX").string();
    Require(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  // The path of a file that has a new inode and this text; replaced at once, as tools do it.
  std::string Put(const std::string& name, std::string_view text) const {
    const std::filesystem::path fresh = path_ / (name + ".new");
    std::ofstream(fresh) << text;
    std::filesystem::rename(fresh, path_ / name);
    return (path_ / name).string();
  }

 private:
  std::filesystem::path path_;
};

struct ClientOptions {
  std::string_view alpn = {"\x02h2", 3};
  const Identity* trusts = nullptr;  // null: anybody
  const Identity* shows = nullptr;
  int max_version = 0;
  SSL_SESSION* resumes = nullptr;
};

// A TLS client at one end of a pair of non-blocking sockets.
class TlsClient {
 public:
  explicit TlsClient(const ClientOptions& options = {}) {
    Require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds_.data()) == 0);
    context_.reset(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
    SSL_CTX* context = context_.get();
    // Old versions are refused by the server, not by ourselves.
    SSL_CTX_set_min_proto_version(context, TLS1_VERSION);
    SSL_CTX_set_cipher_list(context, "ALL:@SECLEVEL=0");
    if (options.max_version != 0) SSL_CTX_set_max_proto_version(context, options.max_version);
    if (options.trusts != nullptr) {
      X509_STORE_add_cert(SSL_CTX_get_cert_store(context), options.trusts->certificate.get());
      SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
    }
    if (options.shows != nullptr) {
      Require(SSL_CTX_use_certificate(context, options.shows->certificate.get()) == 1);
      Require(SSL_CTX_use_PrivateKey(context, options.shows->key.get()) == 1);
    }
    ssl_.reset(SSL_new(context), SSL_free);
    SSL_set_fd(ssl(), fds_[1]);
    SSL_set_alpn_protos(ssl(), reinterpret_cast<const unsigned char*>(options.alpn.data()),
                        static_cast<unsigned>(options.alpn.size()));
    if (options.resumes != nullptr) Require(SSL_set_session(ssl(), options.resumes) == 1);
    SSL_set_connect_state(ssl());
  }
  ~TlsClient() {
    Close();
    close(fds_[0]);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  SSL* ssl() { return ssl_.get(); }
  int server_fd() const { return fds_[0]; }
  int fd() const { return fds_[1]; }

  // Without a word.
  void Close() {
    if (fds_[1] >= 0) close(std::exchange(fds_[1], -1));
  }

  // Turns of both sides until neither gets on; what the server's last one came to.
  TlsSession::Io Shake(TlsSession& server) {
    TlsSession::Io io = TlsSession::Io::kWantRead;
    for (int turn = 0; turn < 20; ++turn) {
      if (fds_[1] >= 0 && SSL_is_init_finished(ssl()) == 0) SSL_do_handshake(ssl());
      if (io != TlsSession::Io::kWantRead && io != TlsSession::Io::kWantWrite) break;
      io = server.Handshake();
    }
    return io;
  }

  // What has come from the server; SSL_get_error's word for why there is no more.
  std::pair<std::string, int> ReadAll() {
    std::string text;
    std::array<char, 65536> chunk;
    while (true) {
      const int n = SSL_read(ssl(), chunk.data(), chunk.size());
      if (n <= 0) return {text, SSL_get_error(ssl(), n)};
      text.append(chunk.data(), static_cast<size_t>(n));
    }
  }

  void Write(std::string_view text) {
    Require(SSL_write(ssl(), text.data(), static_cast<int>(text.size())) ==
            static_cast<int>(text.size()));
  }

  std::string ServerName() {
    std::array<char, 256> text{};
    X509_NAME_get_text_by_NID(X509_get_subject_name(SSL_get0_peer_certificate(ssl())),
                              NID_commonName, text.data(), text.size());
    return text.data();
  }

 private:
  std::array<int, 2> fds_{-1, -1};
  std::shared_ptr<SSL_CTX> context_;
  std::shared_ptr<SSL> ssl_;
};

}  // namespace penstock
