// A CUDA driver for the probe. FAKE_CUDA: "devices <n>", "error <n>" (of cuInit), "crash" or "hang".
// A crash is SIGABRT: sanitizers make other ends of it.

#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s
#include <unistd.h>

#include <cstdlib>
#include <cstring>

namespace {

int Number(const char* word) {
  const char* text = std::getenv("FAKE_CUDA");
  if (text == nullptr || std::strncmp(text, word, std::strlen(word)) != 0) return 0;
  return std::atoi(text + std::strlen(word));
}

bool Is(const char* word) {
  const char* text = std::getenv("FAKE_CUDA");
  return text != nullptr && std::strcmp(text, word) == 0;
}

}  // namespace

extern "C" {

int cuInit(unsigned) {
  if (Is("crash")) raise(SIGABRT);
  while (Is("hang")) pause();
  return Number("error ");
}

int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}

int cuDeviceGetCount(int* count) {
  *count = Number("devices ");
  return 0;
}
}
