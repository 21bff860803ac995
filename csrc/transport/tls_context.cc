// TlsContext: files into an SSL_CTX, again whenever they change.

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"
#include "transport/tls.h"
#include "transport/tls_socket.h"

namespace penstock {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr size_t kReadBufferBytes = 64 << 10;  // a few records of 16 KiB with one recv
// What HTTP/2 allows of TLS 1.2 (RFC 9113, 9.2.2). TLS 1.3 has no others than these.
constexpr const char* kCiphersOfTls12 = "ECDHE+AESGCM:ECDHE+CHACHA20";
constexpr unsigned char kProtocols[] = {2, 'h', '2'};

template <typename T, void (*Free)(T*)>
struct Freed {
  void operator()(T* it) const { Free(it); }
};
using ContextPtr = std::unique_ptr<SSL_CTX, Freed<SSL_CTX, SSL_CTX_free>>;
using CertificatePtr = std::unique_ptr<X509, Freed<X509, X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY, EVP_PKEY_free>>;
using BioPtr = std::unique_ptr<BIO, Freed<BIO, BIO_free_all>>;

std::string Reason() {
  const char* text = ERR_reason_error_string(ERR_peek_last_error());
  return text != nullptr ? text : "OpenSSL gives no reason";
}

// A file's bytes, which are wiped from memory when they go: one of them is a private key.
class Secret {
 public:
  Secret() : bytes_(kMaxFileBytes + 1, '\0') {}
  ~Secret() { OPENSSL_cleanse(bytes_.data(), size_); }
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;

  Status ReadFrom(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return CannotRead(path);
    ssize_t n = 1;
    while (n != 0 && size_ < bytes_.size()) {
      n = read(fd, bytes_.data() + size_, bytes_.size() - size_);
      if (n < 0 && errno != EINTR) break;
      if (n > 0) size_ += static_cast<size_t>(n);
    }
    Status status = n < 0 ? CannotRead(path) : Status::Ok();
    close(fd);
    if (status.ok() && size_ > kMaxFileBytes) {
      return InvalidArgument(StrCat(path, " is larger than ", kMaxFileBytes,
                                    " bytes: it is no file of certificates or keys"));
    }
    return status;
  }

  // Reads from these bytes; they must outlive it.
  BioPtr Reader() const { return BioPtr(BIO_new_mem_buf(bytes_.data(), static_cast<int>(size_))); }

 private:
  static Status CannotRead(const std::string& path) {
    return InvalidArgument(
        StrCat("cannot read ", path, ": ", std::generic_category().message(errno)));
  }

  std::string bytes_;
  size_t size_ = 0;
};

// Nobody is asked for a password; that somebody should have been is noted.
int RefusePassword(char*, int, int, void* was_asked) {
  *static_cast<bool*>(was_asked) = true;
  return -1;
}

// The next certificate of a file; null at its end. Status: there is something else.
Result<CertificatePtr> NextCertificate(BIO* file, const std::string& path) {
  ERR_clear_error();
  bool was_asked = false;
  CertificatePtr certificate(PEM_read_bio_X509_AUX(file, nullptr, RefusePassword, &was_asked));
  if (certificate != nullptr) return certificate;
  if (ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE) return CertificatePtr();
  return InvalidArgument(StrCat(path, " holds a certificate that cannot be read: ", Reason()));
}

// Hands each certificate of the file to `take`, in order. Status: there is none, or one that will
// not do.
template <typename Take>
Status ForEachCertificate(const std::string& path, Take take) {
  Secret text;
  PENSTOCK_RETURN_IF_ERROR(text.ReadFrom(path));
  const BioPtr file = text.Reader();
  for (size_t count = 0;; ++count) {
    PENSTOCK_ASSIGN_OR_RETURN(CertificatePtr certificate, NextCertificate(file.get(), path));
    if (certificate == nullptr) {
      return count > 0 ? Status::Ok() : InvalidArgument(StrCat(path, " holds no certificate"));
    }
    if (!take(certificate.get(), count)) {
      return InvalidArgument(StrCat(path, ": certificate ", count + 1, " will not do: ", Reason()));
    }
  }
}

Status UseCertificate(SSL_CTX* context, const std::string& path) {
  return ForEachCertificate(path, [context](X509* certificate, size_t at) {
    return at == 0 ? SSL_CTX_use_certificate(context, certificate) == 1
                   : SSL_CTX_add1_chain_cert(context, certificate) == 1;
  });
}

Status UseKey(SSL_CTX* context, const TlsFiles& files) {
  Secret text;
  PENSTOCK_RETURN_IF_ERROR(text.ReadFrom(files.key));
  ERR_clear_error();
  bool was_asked = false;
  const KeyPtr key(
      PEM_read_bio_PrivateKey(text.Reader().get(), nullptr, RefusePassword, &was_asked));
  if (was_asked) {
    return InvalidArgument(StrCat(files.key, " has a password; a key without one is needed"));
  }
  if (key == nullptr) {
    return InvalidArgument(StrCat(files.key, " holds no private key: ", Reason()));
  }
  if (SSL_CTX_use_PrivateKey(context, key.get()) != 1 || SSL_CTX_check_private_key(context) != 1) {
    return InvalidArgument(StrCat("certificate ", files.certificate, " and key ", files.key,
                                  " are no pair: ", Reason()));
  }
  return Status::Ok();
}

Status UseClientRoots(SSL_CTX* context, const TlsFiles& files) {
  if (files.client_roots.empty()) {
    if (!files.require_client_certificate) return Status::Ok();
    return InvalidArgument(
        "client certificates are required, but no file says what they must be signed by");
  }
  X509_STORE* store = SSL_CTX_get_cert_store(context);
  PENSTOCK_RETURN_IF_ERROR(ForEachCertificate(files.client_roots, [&](X509* root, size_t) {
    return X509_STORE_add_cert(store, root) == 1 && SSL_CTX_add_client_CA(context, root) == 1;
  }));
  const int required = files.require_client_certificate ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0;
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | required, nullptr);
  return Status::Ok();
}

// NOLINTNEXTLINE(readability-function-size): OpenSSL's signature
int ChooseHttp2(SSL*, const unsigned char** out, unsigned char* out_length,
                const unsigned char* offered, unsigned offered_length, void*) {
  unsigned char* chosen = nullptr;
  const int outcome = SSL_select_next_proto(&chosen, out_length, kProtocols, sizeof kProtocols,
                                            offered, offered_length);
  *out = chosen;
  return outcome == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

// How we speak, whatever the certificate. A session is not resumed, so there are neither tickets
// nor a cache.
bool Configure(SSL_CTX* context) {
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(context, 1);
  SSL_CTX_set_default_read_buffer_len(context, kReadBufferBytes);
  SSL_CTX_set_alpn_select_cb(context, ChooseHttp2, nullptr);
  return SSL_CTX_set_num_tickets(context, 0) == 1 &&
         SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
         SSL_CTX_set_cipher_list(context, kCiphersOfTls12) == 1;
}

}  // namespace

bool TlsContext::FileState::operator==(const FileState& other) const {
  return device == other.device && inode == other.inode && size_bytes == other.size_bytes &&
         changed.tv_sec == other.changed.tv_sec && changed.tv_nsec == other.changed.tv_nsec;
}

TlsContext::FileStates TlsContext::StatesOf(const TlsFiles& files) {
  FileStates states;
  const std::array<const std::string*, 3> paths = {&files.certificate, &files.key,
                                                   &files.client_roots};
  for (size_t i = 0; i < paths.size(); ++i) {
    struct stat found {};
    if (stat(paths[i]->c_str(), &found) != 0) continue;
    states[i] = {.device = found.st_dev,
                 .inode = found.st_ino,
                 .size_bytes = found.st_size,
                 .changed = found.st_mtim};
  }
  return states;
}

Result<TlsContext::ContextRef> TlsContext::Load(const TlsFiles& files) {
  ERR_clear_error();
  ContextPtr context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr || !Configure(context.get())) {
    return Internal(StrCat("OpenSSL cannot be set up: ", Reason()));
  }
  PENSTOCK_RETURN_IF_ERROR(UseCertificate(context.get(), files.certificate));
  PENSTOCK_RETURN_IF_ERROR(UseKey(context.get(), files));
  PENSTOCK_RETURN_IF_ERROR(UseClientRoots(context.get(), files));
  return ContextRef(std::move(context));
}

TlsContext::TlsContext(TlsFiles files, ContextRef context, FileStates seen)
    : files_(std::move(files)), seen_(seen), context_(std::move(context)) {}

TlsContext::~TlsContext() = default;

Result<std::unique_ptr<TlsContext>> TlsContext::Create(TlsFiles files) {
  const FileStates seen = StatesOf(files);
  PENSTOCK_ASSIGN_OR_RETURN(ContextRef context, Load(files));
  return std::unique_ptr<TlsContext>(new TlsContext(std::move(files), std::move(context), seen));
}

std::optional<Status> TlsContext::Reload() {
  if (!reload_mu_.TryLock()) return std::nullopt;
  std::optional<Status> outcome;
  if (const FileStates found = StatesOf(files_); found != seen_) {
    seen_ = found;
    Result<ContextRef> loaded = Load(files_);
    outcome = loaded.status();
    if (loaded.ok()) {
      MutexLock lock(mu_);
      context_.swap(*loaded);  // the old one goes without the lock
    }
  }
  reload_mu_.Unlock();
  return outcome;
}

Result<std::unique_ptr<TlsSession>> TlsContext::Accept(int fd) {
  if (const std::optional<Status> outcome = Reload()) {
    if (outcome->ok()) {
      Log(LogLevel::kInfo, "transport", "the certificate of the gRPC port was read anew");
    } else {
      Log(LogLevel::kError, "transport",
          StrCat("the certificate in use stays in use: ", outcome->message()));
    }
  }
  ContextRef context;
  {
    MutexLock lock(mu_);
    context = context_;
  }
  ERR_clear_error();
  std::unique_ptr<TlsSession> session;
  if (SSL* ssl = SSL_new(context.get())) session.reset(new TlsSession(ssl));
  BIO* socket = session != nullptr ? NewTlsSocket(fd) : nullptr;
  if (socket == nullptr) return Internal(StrCat("no TLS for a connection: ", Reason()));
  SSL_set_bio(session->ssl_, socket, socket);
  SSL_set_accept_state(session->ssl_);
  return session;
}

}  // namespace penstock
