// Version: a version of TensorRT's library, and which ones a build of ours can drive.

#pragma once

#include <span>
#include <string>

#include "base/strcat.h"

namespace penstock::tensorrt {

struct Version {
  int major = 0, minor = 0, patch = 0, build = 0;

  std::string Text() const { return StrCat(major, ".", minor, ".", patch, ".", build); }
};

// What an adapter was compiled with. TensorRT's C++ classes change with the major (a table of
// functions shifts, and the first call crashes) and grow with the minor; the library checks neither.
struct HeaderVersion {
  int major = 0, minor = 0;

  std::string Text() const { return StrCat(major, ".", minor); }
  // Whether a library of `version` has all that the headers promise, where they promise it.
  bool Drives(const Version& version) const {
    return version.major == major && version.minor >= minor;
  }
};

// "" where one of `accepted` drives it; else why none does.
std::string WhyRefused(const Version& version, std::span<const HeaderVersion> accepted);

}  // namespace penstock::tensorrt
