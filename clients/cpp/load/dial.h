// Dial: a connected socket.

#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"

namespace penstock::load {

// A non-blocking TCP socket without delay of small writes. UNAVAILABLE when nobody takes the
// connection, naming host and port.
// Blocking: yes, for at most 5 s for each address of the host.
Result<int> Dial(const std::string& host, uint16_t port);

}  // namespace penstock::load
