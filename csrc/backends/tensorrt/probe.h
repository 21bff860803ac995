// RunProbe: what the probe's process does. It opens the driver and TensorRT's library, asks both for
// their versions, and says what it found; a vendor's crash is then the probe's, not the server's.
//
// TensorRT without a driver answers a pointer that is not null and crashes at its first use, and a
// library of another major crashes in its first call, so the order is: the driver, its devices, the
// library, its version. Nothing of TensorRT's C++ interface is called.

#pragma once

#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "backends/tensorrt/version.h"

namespace penstock::tensorrt {

// Lines of the probe begin with this; others are the vendors' own.
inline constexpr const char* kProbeLine = "penstock-probe ";
// What follows it: "step <what it does next>", "away <why there is no device>", "refused <why>", or
// "found <major> <minor> <patch> <build> <candidate>".
inline constexpr const char* kStepWord = "step ";
inline constexpr const char* kAwayWord = "away ";
inline constexpr const char* kRefusedWord = "refused ";
inline constexpr const char* kFoundWord = "found ";

// Threading: none other may be in the process.
void RunProbe(std::span<const HeaderVersion> accepted, const std::vector<std::string>& candidates,
              std::FILE* out);

}  // namespace penstock::tensorrt
