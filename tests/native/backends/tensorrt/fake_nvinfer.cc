// TensorRT's runtime for the probe: FAKE_TENSORRT is its version, "11 1 0 106", or "crash". Before the
// version may stand "flood ", to write a megabyte first, or "leave ", to start a process that keeps
// the output until FAKE_TENSORRT_FIFO, a FIFO, is opened and closed by a writer.
// A crash is SIGABRT: sanitizers make other ends of it.

#include <fcntl.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

// As a vendor's library may: lines, and one that never ends.
void Flood() {
  for (int i = 0; i < 10'000; ++i) std::fputs("a line that nobody asked for\n", stderr);
  for (int i = 0; i < 100'000; ++i) std::fputs("word ", stderr);
}

void LeaveAProcess() {
  if (fork() != 0) return;
  char byte;
  const int fifo = open(std::getenv("FAKE_TENSORRT_FIFO"), O_RDONLY);
  while (read(fifo, &byte, 1) > 0) {
  }
  _exit(0);
}

int Part(int index) {
  const char* text = std::getenv("FAKE_TENSORRT");
  if (text == nullptr) return 0;
  if (std::strcmp(text, "crash") == 0) raise(SIGABRT);
  static bool is_first = true;
  const bool floods = std::strncmp(text, "flood ", 6) == 0;
  const bool leaves = std::strncmp(text, "leave ", 6) == 0;
  if (floods && is_first) Flood();
  if (leaves && is_first) LeaveAProcess();
  is_first = false;
  if (floods || leaves) text += 6;
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
