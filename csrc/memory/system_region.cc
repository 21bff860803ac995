#include "memory/system_region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <climits>
#include <string_view>
#include <utility>

#include "base/strcat.h"

namespace penstock {
namespace {

constexpr size_t kLongestCopyBytes = size_t{1} << 30;  // pread and pwrite stop at 2 GiB

// As shm_open takes it: slashes in front, then the name of a file without any.
bool IsKey(std::string_view key) {
  if (key.size() > size_t{2} * NAME_MAX) return false;  // the slashes are kept, too
  key.remove_prefix(std::min(key.find_first_not_of('/'), key.size()));
  return !key.empty() && key.size() <= NAME_MAX && key != "." && key != ".." &&
         key.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

Status CheckArguments(const SharedRegionInfo& info) {
  if (!IsKey(info.key)) {
    return InvalidRegion(info, StrCat("a key is '/' and a file name of at most ", NAME_MAX,
                                      " bytes without further slashes"));
  }
  if (info.size_bytes == 0) return InvalidRegion(info, "the byte size is 0");
  constexpr auto kGreatest = static_cast<uint64_t>(INT64_MAX);  // of a file's size
  if (info.size_bytes > kGreatest || info.offset > kGreatest - info.size_bytes) {
    return InvalidRegion(info, StrCat("offset ", info.offset, " and byte size ", info.size_bytes,
                                      " are out of range"));
  }
  return Status::Ok();
}

Status OpenFailed(const SharedRegionInfo& info, int error) {
  const std::string text = StrCat("Unable to open shared memory region: '", info.key, "'");
  if (error == EMFILE || error == ENFILE) {
    return ResourceExhausted(StrCat(text, ": too many files are open"));
  }
  return Internal(text);
}

// The object's size; -1 where it cannot be known.
int64_t SizeOf(int fd) {
  struct stat found {};
  return fstat(fd, &found) == 0 ? static_cast<int64_t>(found.st_size) : -1;
}

Status CheckObject(const SharedRegionInfo& info, int fd) {
  struct stat found {};
  if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode)) {
    return Internal(StrCat("Invalid shared memory region: '", info.key, "'"));
  }
  const auto size_bytes = static_cast<uint64_t>(found.st_size);
  if (info.offset + info.size_bytes > size_bytes) {
    return InvalidRegion(info,
                         StrCat("offset ", info.offset, " and byte size ", info.size_bytes,
                                " reach beyond the ", size_bytes, " bytes of '", info.key, "'"));
  }
  return Status::Ok();
}

}  // namespace

Result<std::unique_ptr<const SharedRegion>> SystemRegion::Open(SharedRegionInfo info) {
  PENSTOCK_RETURN_IF_ERROR(CheckArguments(info));
  // O_NONBLOCK: whatever else lies there under that name must not hold the caller up.
  const int flags = O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  const int fd = shm_open(info.key.c_str(), flags, 0);
  if (fd < 0) return OpenFailed(info, errno);
  if (Status status = CheckObject(info, fd); !status.ok()) {
    close(fd);  // at once: whoever opens may be held up
    return status;
  }
  // Not make_unique: the constructor is private.
  return std::unique_ptr<const SharedRegion>(new SystemRegion(std::move(info), fd));
}

SystemRegion::~SystemRegion() { close(fd_); }

Status SystemRegion::TooSmall(uint64_t needed_bytes, uint64_t found_bytes) const {
  return InvalidArgument(StrCat("shared memory region '", info().name,
                                "' has become too small: expected ", needed_bytes, " bytes, got ",
                                found_bytes));
}

Status SystemRegion::Read(uint64_t offset, std::span<uint8_t> out) const {
  assert(Contains(offset, out.size()));
  size_t done = 0;
  while (done < out.size()) {
    const size_t size = std::min(out.size() - done, kLongestCopyBytes);
    const auto at = static_cast<off_t>(info().offset + offset + done);
    const ssize_t got = pread(fd_, out.data() + done, size, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      return Internal(
          StrCat("shared memory region '", info().name, "' cannot be read: error ", errno));
    }
    if (got == 0) return TooSmall(out.size(), done);
    done += static_cast<size_t>(got);
  }
  return Status::Ok();
}

Status SystemRegion::Write(uint64_t offset, std::span<const uint8_t> data) const {
  assert(Contains(offset, data.size()));
  // It may still shrink behind this look; it then grows to what it was registered as, at most.
  const int64_t begin = static_cast<int64_t>(info().offset + offset);
  const int64_t size_now = SizeOf(fd_);
  if (size_now < begin + static_cast<int64_t>(data.size())) {
    return TooSmall(data.size(), static_cast<uint64_t>(std::max<int64_t>(size_now - begin, 0)));
  }
  size_t done = 0;
  while (done < data.size()) {
    const size_t size = std::min(data.size() - done, kLongestCopyBytes);
    const ssize_t put = pwrite(fd_, data.data() + done, size, begin + static_cast<off_t>(done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) {
      return Internal(StrCat("shared memory region '", info().name, "' cannot be written: error ",
                             put < 0 ? errno : 0));
    }
    done += static_cast<size_t>(put);
  }
  return Status::Ok();
}

}  // namespace penstock
