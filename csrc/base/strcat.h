// StrCat: joins strings, characters and numbers (gcc 12 has no std::format).

#pragma once

#include <string>
#include <string_view>
#include <type_traits>

namespace penstock {
namespace internal {

inline void AppendPiece(std::string& out, std::string_view piece) { out.append(piece); }
inline void AppendPiece(std::string& out, char piece) { out.push_back(piece); }
template <typename T>
requires(std::is_arithmetic_v<T> && !std::is_same_v<T, char>) void AppendPiece(std::string& out,
                                                                               T piece) {
  out.append(std::to_string(piece));
}

}  // namespace internal

template <typename... Args>
std::string StrCat(const Args&... args) {
  std::string out;
  (internal::AppendPiece(out, args), ...);
  return out;
}

}  // namespace penstock
