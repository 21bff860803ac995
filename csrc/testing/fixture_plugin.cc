// The plug-in's entry: the fixture backend for servers that tests start. Option "fifo": a FIFO that a
// writer must open and close before it starts.

#include <fcntl.h>
#include <unistd.h>

#include "testing/fixture_backend.h"

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_backend_v4(const penstock::BackendOptions& options) {
  if (const auto fifo = options.find("fifo"); fifo != options.end()) {
    const int fd = open(fifo->second.c_str(), O_RDONLY | O_CLOEXEC);
    char byte;
    while (read(fd, &byte, 1) > 0) {
    }
    close(fd);
  }
  return penstock::MakeFixtureBackend();
}
