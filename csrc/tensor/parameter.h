// Parameter: a named value that a client sends with a request.

#pragma once

#include <cstdint>
#include <string_view>
#include <variant>

namespace penstock {

using ParameterValue = std::variant<bool, int64_t, uint64_t, double, std::string_view>;

// A key may come twice (it is a map on the wire): the last one counts.
struct Parameter {
  std::string_view key;
  ParameterValue value;
};

}  // namespace penstock
