// SHA-256 (FIPS 180-4), for what is known by its digest alone: keys and tokens of callers.

#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace penstock {

using Sha256Digest = std::array<uint8_t, 32>;

// The time it takes depends on the length alone.
Sha256Digest Sha256(std::string_view bytes);

// Whether both are the same. The time it takes depends on the lengths alone, so that nobody can
// guess a secret piece by piece.
bool EqualInConstantTime(std::string_view a, std::string_view b);

}  // namespace penstock
