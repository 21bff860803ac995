// TLS 1.2 and 1.3 for gRPC, through OpenSSL: certificates from files that are read anew when they
// change, ALPN "h2", mutual TLS.
//
// There is no resumption of sessions: connections live long, and a client's certificate is checked
// at each of them.

#pragma once

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"

struct ssl_st;      // OpenSSL's SSL
struct ssl_ctx_st;  // and SSL_CTX

namespace penstock {

// Paths of PEM files.
struct TlsFiles {
  std::string certificate;        // ours, with what it was signed by, up to the root
  std::string key;                // its private key, without a password
  std::string client_roots = {};  // what signs those of clients; "" = they are not asked for any
  bool require_client_certificate = false;  // false: whoever has one shows it
};

// One connection's TLS, over a non-blocking socket.
//
// Each call does what can be done at once and says what it waits for: kWantRead or kWantWrite, the
// socket readable or writable, whichever the call was. kClosed: the other side has gone, with or
// without a goodbye. kError: it does not keep to TLS, or nothing was agreed upon; last_error() says
// why. After either of these only Shutdown and the destructor are of use.
//
// Threading: confined to its connection's thread.
// Ownership: borrows the socket, which outlives it and is closed by its owner.
// Lifecycle: Handshake until kDone; then Read and Write in any order; then Shutdown.
// Blocking: never on the socket. A handshake computes for about a millisecond.
class TlsSession {
 public:
  struct AlternativeName {
    std::string kind;  // "dns", "uri", "ip", "email", or "" for any other
    std::string value;
  };

  enum class Io { kDone, kWantRead, kWantWrite, kClosed, kError };

  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  // kDone: both sides are agreed, and on HTTP/2; also of a session that was done before.
  Io Handshake();

  // Up to into.size() bytes, *n of them, at least one with kDone. Bytes may wait within the session
  // while the socket has none: read until kWantRead, or ask has_pending() before waiting for it.
  // REQUIRES: into is not empty.
  Io Read(std::span<uint8_t> into, size_t* n);
  bool has_pending() const;

  // Up to from.size() bytes, *n of them, at least one with kDone. After kWantWrite or kWantRead the
  // next Write must begin with the same bytes, and have no fewer; they may lie elsewhere.
  // REQUIRES: from is not empty.
  Io Write(std::span<const uint8_t> from, size_t* n);

  // Says goodbye (close_notify) where that makes sense; never waits for the other side's. Anything
  // but kWantWrite is the end of it; after kWantWrite it may be called again, or not.
  Io Shutdown();

  // Of the certificate that the client showed; "" where it showed none. The first common name, and
  // the whole subject as RFC 2253 writes it.
  std::string peer_common_name() const;
  std::string peer_subject() const;
  // All of it in PEM, and its alternative names, as gRPC writes them.
  std::string peer_pem() const;
  std::vector<AlternativeName> peer_alternative_names() const;

  // Why the last call gave kError, for the log; "" otherwise.
  const std::string& last_error() const { return last_error_; }

 private:
  friend class TlsContext;
  explicit TlsSession(ssl_st* ssl) : ssl_(ssl) {}

  Io Fail(std::string why);
  Io OutcomeOf(int code);

  // Constant after construction.
  ssl_st* const ssl_;  // owned

  // Only on the connection's thread.
  bool is_shaken_ = false;
  bool is_broken_ = false;  // OpenSSL allows no goodbye any more
  std::string last_error_;
};

// The server's side of TLS: certificate, key and roots, as the files now are.
//
// Threading: thread-safe.
// Ownership: sessions hold what they were made with; they may outlive the context.
// Blocking: Create reads small files; so does Accept, when they have changed: then one caller reads
// them while others go on with what there was.
class TlsContext {
 public:
  // Status: INVALID_ARGUMENT, which names the file: it cannot be read, holds no certificate or key,
  // a key with a password (nobody is asked for it) or one that is not the certificate's.
  static Result<std::unique_ptr<TlsContext>> Create(TlsFiles files);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  // The session of a connection that was just accepted; `fd` is non-blocking. Files that changed
  // (inode, size, time of change) are read anew first; where they will not do, what was used before
  // is used on, and the log says so once for each change.
  // Status: INTERNAL where OpenSSL has no memory for it.
  Result<std::unique_ptr<TlsSession>> Accept(int fd);

 private:
  struct FileState {
    dev_t device = 0;
    ino_t inode = 0;
    off_t size_bytes = -1;  // -1: there is none
    timespec changed{};
    bool operator==(const FileState& other) const;
  };
  using FileStates = std::array<FileState, 3>;
  // Shared: a session is made of it while another thread puts a new one in its place.
  using ContextRef = std::shared_ptr<ssl_ctx_st>;

  TlsContext(TlsFiles files, ContextRef context, FileStates seen);

  static FileStates StatesOf(const TlsFiles& files);
  static Result<ContextRef> Load(const TlsFiles& files);
  // What came of it; nullopt: nothing changed, or another thread is at it.
  std::optional<Status> Reload();

  // Constant after construction.
  const TlsFiles files_;

  Mutex reload_mu_;
  // Guarded by reload_mu_.
  FileStates seen_ GUARDED_BY(reload_mu_);  // when they were last read, well or not

  Mutex mu_ ACQUIRED_AFTER(reload_mu_);
  // Guarded by mu_.
  ContextRef context_ GUARDED_BY(mu_);
};

}  // namespace penstock
