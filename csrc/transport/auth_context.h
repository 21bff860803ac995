// AuthContext: what TLS tells of a client, in gRPC's words.

#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "transport/tls.h"

namespace penstock {

// Keys and values; of a key with several values one entry each.
using AuthContext = std::vector<std::pair<std::string, std::string>>;

// REQUIRES: the handshake is done.
std::shared_ptr<const AuthContext> AuthContextOf(const TlsSession& session);

}  // namespace penstock
