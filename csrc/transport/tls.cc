#include "transport/tls.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cerrno>
#include <string_view>
#include <utility>

#include "base/strcat.h"
#include "transport/tls_socket.h"

namespace penstock {
namespace {

constexpr std::string_view kHttp2 = "h2";

using CertificateRef = std::unique_ptr<X509, decltype(&X509_free)>;

CertificateRef PeerCertificate(SSL* ssl) {
  return CertificateRef(SSL_get1_peer_certificate(ssl), X509_free);
}

using BioRef = std::unique_ptr<BIO, decltype(&BIO_free)>;

std::string TextOf(BIO* bio) {
  const char* data = nullptr;
  const long length = BIO_get_mem_data(bio, &data);
  return length > 0 ? std::string(data, static_cast<size_t>(length)) : "";
}

std::string TextOf(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
          static_cast<size_t>(ASN1_STRING_length(text))};
}

std::string AddressOf(const ASN1_STRING* bytes) {
  const int length = ASN1_STRING_length(bytes);
  if (length != 4 && length != 16) return "";
  std::array<char, INET6_ADDRSTRLEN> text{};
  inet_ntop(length == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(bytes), text.data(),
            text.size());
  return text.data();
}

TlsSession::AlternativeName AlternativeNameOf(const GENERAL_NAME* name) {
  switch (name->type) {
    case GEN_DNS:
      return {"dns", TextOf(name->d.dNSName)};
    case GEN_URI:
      return {"uri", TextOf(name->d.uniformResourceIdentifier)};
    case GEN_IPADD:
      return {"ip", AddressOf(name->d.iPAddress)};
    case GEN_EMAIL:
      return {"email", TextOf(name->d.rfc822Name)};
    default:
      return {"", "other types of SAN"};
  }
}

bool HasChosenHttp2(const SSL* ssl) {
  const unsigned char* name = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(ssl, &name, &length);
  return std::string_view(reinterpret_cast<const char*>(name), length) == kHttp2;
}

// What OpenSSL has against the other side, or it against us.
std::string ReasonOf(const SSL* ssl) {
  const unsigned long error = ERR_peek_last_error();
  const char* text = ERR_reason_error_string(error);
  std::string reason = text != nullptr ? text : "it does not keep to the protocol";
  const long verified = SSL_get_verify_result(ssl);
  if (verified == X509_V_OK) return reason;
  return StrCat(reason, " (", X509_verify_cert_error_string(verified), ")");
}

}  // namespace

TlsSession::~TlsSession() { SSL_free(ssl_); }

TlsSession::Io TlsSession::Fail(std::string why) {
  is_broken_ = true;
  last_error_ = std::move(why);
  return Io::kError;
}

TlsSession::Io TlsSession::OutcomeOf(int code) {
  switch (SSL_get_error(ssl_, code)) {
    case SSL_ERROR_WANT_READ:
      return Io::kWantRead;
    case SSL_ERROR_WANT_WRITE:
      return Io::kWantWrite;
    case SSL_ERROR_ZERO_RETURN:
      return Io::kClosed;
    case SSL_ERROR_SYSCALL:  // the connection is gone; HTTP/2 knows whether anything was cut off
      is_broken_ = true;
      return Io::kClosed;
    default:
      return Fail(ReasonOf(ssl_));
  }
}

TlsSession::Io TlsSession::Handshake() {
  if (is_shaken_) return Io::kDone;
  last_error_.clear();
  ERR_clear_error();
  const int code = SSL_do_handshake(ssl_);
  if (code != 1) return OutcomeOf(code);
  if (!HasChosenHttp2(ssl_)) {
    last_error_ = "the client did not ask for HTTP/2 (ALPN \"h2\")";
    return Io::kError;
  }
  is_shaken_ = true;
  return Io::kDone;
}

TlsSession::Io TlsSession::Read(std::span<uint8_t> into, size_t* n) {
  assert(is_shaken_ && !into.empty());
  *n = 0;
  last_error_.clear();
  ERR_clear_error();
  const int code = SSL_read_ex(ssl_, into.data(), into.size(), n);
  return code == 1 ? Io::kDone : OutcomeOf(code);
}

bool TlsSession::has_pending() const { return SSL_has_pending(ssl_) == 1; }

TlsSession::Io TlsSession::Write(std::span<const uint8_t> from, size_t* n) {
  assert(is_shaken_ && !from.empty());
  *n = 0;
  last_error_.clear();
  ERR_clear_error();
  const int code = SSL_write_ex(ssl_, from.data(), from.size(), n);
  return code == 1 ? Io::kDone : OutcomeOf(code);
}

TlsSession::Io TlsSession::Shutdown() {
  if (is_broken_ || SSL_in_init(ssl_) == 1) return Io::kDone;
  last_error_.clear();
  ERR_clear_error();
  const int code = SSL_shutdown(ssl_);
  return code >= 0 ? Io::kDone : OutcomeOf(code);
}

std::string TlsSession::peer_common_name() const {
  const CertificateRef certificate = PeerCertificate(ssl_);
  if (certificate == nullptr) return "";
  const X509_NAME* subject = X509_get_subject_name(certificate.get());
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0) return "";
  unsigned char* text = nullptr;
  const int length =
      ASN1_STRING_to_UTF8(&text, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
  if (length < 0) return "";
  std::string name(reinterpret_cast<const char*>(text), static_cast<size_t>(length));
  OPENSSL_free(text);
  return name;
}

std::string TlsSession::peer_subject() const {
  const CertificateRef certificate = PeerCertificate(ssl_);
  if (certificate == nullptr) return "";
  const BioRef text(BIO_new(BIO_s_mem()), BIO_free);
  if (text == nullptr) return "";
  const X509_NAME* subject = X509_get_subject_name(certificate.get());
  if (X509_NAME_print_ex(text.get(), subject, 0, XN_FLAG_RFC2253) < 0) return "";
  return TextOf(text.get());
}

std::string TlsSession::peer_pem() const {
  const CertificateRef certificate = PeerCertificate(ssl_);
  if (certificate == nullptr) return "";
  const BioRef text(BIO_new(BIO_s_mem()), BIO_free);
  if (text == nullptr || PEM_write_bio_X509(text.get(), certificate.get()) != 1) return "";
  return TextOf(text.get());
}

std::vector<TlsSession::AlternativeName> TlsSession::peer_alternative_names() const {
  std::vector<AlternativeName> names;
  const CertificateRef certificate = PeerCertificate(ssl_);
  if (certificate == nullptr) return names;
  const std::unique_ptr<GENERAL_NAMES, decltype(&GENERAL_NAMES_free)> found(
      static_cast<GENERAL_NAMES*>(
          X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr)),
      GENERAL_NAMES_free);
  for (int i = 0; i < sk_GENERAL_NAME_num(found.get()); ++i) {
    names.push_back(AlternativeNameOf(sk_GENERAL_NAME_value(found.get(), i)));
  }
  return names;
}

}  // namespace penstock
