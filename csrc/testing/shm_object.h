// ShmObject: a client's shared memory, for tests that register it and then misbehave.

#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cassert>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/strcat.h"
#include "memory/shared_region.h"

namespace penstock {

// Threading: thread-safe, as files are.
// Ownership: owns the object; it is unlinked at the end, if it was not before.
class ShmObject {
 public:
  explicit ShmObject(size_t size_bytes) : key_(FreshKey()) {
    fd_ = shm_open(key_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert(fd_ >= 0);
    Resize(size_bytes);
  }
  explicit ShmObject(std::string_view contents) : ShmObject(contents.size()) { Write(contents); }
  ~ShmObject() {
    Unlink();
    close(fd_);
  }
  ShmObject(const ShmObject&) = delete;
  ShmObject& operator=(const ShmObject&) = delete;

  const std::string& key() const { return key_; }
  // The whole object, or so much of it, as a client registers it.
  SharedRegionInfo Region(std::string name, uint64_t size_bytes, uint64_t offset = 0) const {
    return {.name = std::move(name), .key = key_, .offset = offset, .size_bytes = size_bytes};
  }
  // The object as a fake GPU's memory: what another process would export it as, and a client
  // registers.
  std::string IpcHandle() const { return key_ + std::string(64 - key_.size(), '\0'); }
  SharedRegionInfo CudaRegion(std::string name, uint64_t size_bytes, int64_t device_id = 0) const {
    return {.name = std::move(name), .device_id = device_id, .size_bytes = size_bytes};
  }
  void Resize(size_t size_bytes) {
    const int result = ftruncate(fd_, static_cast<off_t>(size_bytes));
    assert(result == 0);
    static_cast<void>(result);
  }
  void Unlink() { shm_unlink(key_.c_str()); }
  void Write(std::string_view bytes, size_t offset = 0) {
    const ssize_t put = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    assert(put == static_cast<ssize_t>(bytes.size()));
    static_cast<void>(put);
  }
  std::string Read(size_t size_bytes, size_t offset = 0) const {
    std::string bytes(size_bytes, '\0');
    const ssize_t got = pread(fd_, bytes.data(), size_bytes, static_cast<off_t>(offset));
    bytes.resize(got < 0 ? 0 : static_cast<size_t>(got));
    return bytes;
  }
  size_t size() const { return static_cast<size_t>(lseek(fd_, 0, SEEK_END)); }

 private:
  static std::string FreshKey() {
    static std::atomic<int> next{0};
    return StrCat("/penstock-test-", getpid(), "-", next.fetch_add(1));
  }

  const std::string key_;
  int fd_ = -1;
};

}  // namespace penstock
