// TensorRT's runtime for the probe: FAKE_TENSORRT is its version, "11 1 0 106", or "crash".
// A crash is SIGABRT: sanitizers make other ends of it.

#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

int Part(int index) {
  const char* text = std::getenv("FAKE_TENSORRT");
  if (text == nullptr) return 0;
  if (std::strcmp(text, "crash") == 0) raise(SIGABRT);
  int parts[4] = {};
  std::sscanf(text, "%d %d %d %d", &parts[0], &parts[1], &parts[2], &parts[3]);
  return parts[index];
}

}  // namespace

extern "C" {

int getInferLibMajorVersion() { return Part(0); }
int getInferLibMinorVersion() { return Part(1); }
int getInferLibPatchVersion() { return Part(2); }
int getInferLibBuildVersion() { return Part(3); }
}
