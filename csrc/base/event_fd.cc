#include "base/event_fd.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <system_error>

namespace penstock {

EventFd::EventFd() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
}

EventFd::~EventFd() { close(fd_); }

void EventFd::Set() const {
  // Fails only when the counter is at its maximum, and then the descriptor is readable anyway.
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = write(fd_, &one, sizeof(one));
}

void EventFd::Clear() const {
  uint64_t count = 0;
  [[maybe_unused]] const auto n = read(fd_, &count, sizeof(count));
}

}  // namespace penstock
