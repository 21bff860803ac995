// penstock_tensorrt_probe <major.minor,...> <candidate>...: see probe.h. Started by the server alone.

#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "backends/tensorrt/probe.h"

namespace {

constexpr unsigned kLimitS = 120;  // also where the server that waits for it is gone

// "11.1,10.16"; what cannot be read is left out.
std::vector<penstock::tensorrt::HeaderVersion> ReadVersions(const char* text) {
  std::vector<penstock::tensorrt::HeaderVersion> versions;
  penstock::tensorrt::HeaderVersion version;
  for (int taken = 0; std::sscanf(text, "%d.%d%n", &version.major, &version.minor, &taken) == 2;) {
    versions.push_back(version);
    text += taken;
    if (*text++ != ',') break;
  }
  return versions;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: penstock_tensorrt_probe <major.minor,...> <candidate>...\n", stderr);
    return 2;
  }
  alarm(kLimitS);
  try {
    penstock::tensorrt::RunProbe(ReadVersions(argv[1]), {argv + 2, argv + argc}, stdout);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  // No destructor of a vendor's library gets to crash after the answer was given.
  _exit(0);
}
