// UTF-8 as proto3 strings must be: shortest form, no surrogates, nothing beyond U+10FFFF.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace penstock {

bool IsValidUtf8(std::string_view text);

// Bytes of the character that `text` begins with; 0 where it begins with none. REQUIRES: not empty.
size_t CharacterLength(std::string_view text);

// `text` with U+FFFD for every byte that is not part of a character: for texts from outside, such
// as a backend's, on their way to a client.
std::string ReplaceInvalidUtf8(std::string_view text);

// `text` in single quotes for an error message, cut at a character after `max_bytes`, so that a
// client which sends a name of a megabyte does not get it back. REQUIRES: IsValidUtf8(text).
std::string Quoted(std::string_view text, size_t max_bytes = 128);

}  // namespace penstock
