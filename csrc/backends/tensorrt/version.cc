#include "backends/tensorrt/version.h"

#include <algorithm>

namespace penstock::tensorrt {

std::string WhyRefused(const Version& version, std::span<const HeaderVersion> accepted) {
  std::string wanted;
  bool is_older = false;
  for (const HeaderVersion& each : accepted) {
    if (each.Drives(version)) return "";
    is_older = is_older || each.major == version.major;
    wanted += StrCat(wanted.empty() ? "" : " or ", each.Text(), " or a later ", each.major, ".x");
  }
  return StrCat("TensorRT ", version.Text(), " was found, which is ",
                is_older ? "too old" : "of another major version", ": needed is ", wanted);
}

}  // namespace penstock::tensorrt
