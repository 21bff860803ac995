// Time-outs as Python gives them: seconds, of any size.

#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace penstock::bindings {

// In nanoseconds, no longer than thirty years, so that the sum with a point in time does not
// overflow. ValueError for not-a-number.
inline int64_t TimeoutNs(double timeout_s) {
  constexpr double kLongestS = 1e9;
  if (std::isnan(timeout_s)) throw pybind11::value_error("timeout_s is not a number");
  return static_cast<int64_t>(std::clamp(timeout_s, 0.0, kLongestS) * 1e9);
}

}  // namespace penstock::bindings
