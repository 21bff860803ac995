// The socket under a TLS session: OpenSSL's own would raise SIGPIPE where the other side has gone.

#pragma once

struct bio_st;  // OpenSSL's BIO

namespace penstock {

// A source and sink over a non-blocking socket, which it borrows; null where there is no memory.
// Ownership: the caller's, who hands it to SSL_set_bio.
// Threading: confined to its connection's thread.
bio_st* NewTlsSocket(int fd);

}  // namespace penstock
