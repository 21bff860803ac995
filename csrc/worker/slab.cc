#include "worker/slab.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/strcat.h"

namespace penstock {
namespace {

constexpr size_t kGreatestSlabBytes = size_t{1} << 40;

size_t RoundUp(size_t size_bytes, size_t unit) { return (size_bytes + unit - 1) / unit * unit; }

uint32_t NextId() {
  static std::atomic<uint32_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

Status NoMemory(size_t size_bytes, int error) {
  return ResourceExhausted(
      StrCat("no shared memory of ", size_bytes, " bytes for a worker: ", strerrordesc_np(error)));
}

}  // namespace

Result<std::shared_ptr<Slab>> Slab::Create(size_t size_bytes, bool is_lasting) {
  if (size_bytes > kGreatestSlabBytes) return NoMemory(size_bytes, EFBIG);
  size_bytes = RoundUp(std::max(size_bytes, kPageBytes), kPageBytes);
  OwnedFd fd(memfd_create("penstock-slab", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() < 0 || ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0 ||
      fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return NoMemory(size_bytes, errno);
  }
  void* data = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (data == MAP_FAILED) return NoMemory(size_bytes, errno);
  // Not make_shared: the constructor is private.
  return std::shared_ptr<Slab>(
      new Slab(std::move(fd), static_cast<uint8_t*>(data), size_bytes, is_lasting));
}

Result<OwnedFd> Slab::CreateDocument(std::string_view contents) {
  OwnedFd fd(memfd_create("penstock-start", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() < 0) return NoMemory(contents.size(), errno);
  for (size_t done = 0; done < contents.size();) {
    const ssize_t written =
        pwrite(fd.get(), contents.data() + done, contents.size() - done, static_cast<off_t>(done));
    if (written <= 0) return NoMemory(contents.size(), errno);
    done += static_cast<size_t>(written);
  }
  const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
  if (fcntl(fd.get(), F_ADD_SEALS, seals) != 0) return NoMemory(contents.size(), errno);
  return fd;
}

Slab::Slab(OwnedFd fd, uint8_t* data, size_t size_bytes, bool is_lasting)
    : id_(NextId()),
      fd_(std::move(fd)),
      data_(data),
      size_bytes_(size_bytes),
      is_lasting_(is_lasting) {}

Slab::~Slab() { munmap(data_, size_bytes_); }

std::optional<size_t> Slab::OffsetOf(std::span<const uint8_t> data) const {
  const auto begin = reinterpret_cast<uintptr_t>(data_);
  const auto at = reinterpret_cast<uintptr_t>(data.data());
  if (at < begin || at - begin > size_bytes_ || data.size() > size_bytes_ - (at - begin)) {
    return std::nullopt;
  }
  return at - begin;
}

Result<std::span<uint8_t>> SlabArena::Allocate(size_t size_bytes) {
  const size_t taken = RoundUp(size_bytes, kAlignment);
  if (slabs_.empty() || taken > slabs_.back()->size() - used_bytes_) {
    // As large as all of the batch so far: the next one of its size then fits into one slab. Rounded
    // up by a quarter at most: a device's worker pins all of it.
    const size_t least = std::max(batch_bytes_ + taken, kFirstSlabBytes);
    const size_t size = RoundUp(least, std::bit_floor(least) / 4);
    const bool will_stay = size <= kGreatestKeptBytes || smaller_left_ > 0;
    PENSTOCK_ASSIGN_OR_RETURN(auto slab, Slab::Create(size, will_stay));
    if (batch_bytes_ == 0) slabs_.clear();
    slabs_.push_back(std::move(slab));
    used_bytes_ = 0;
  }
  uint8_t* data = slabs_.back()->data() + used_bytes_;
  used_bytes_ += taken;
  batch_bytes_ += taken;
  return std::span<uint8_t>(data, size_bytes);
}

std::optional<SlabPlace> SlabArena::Find(std::span<const uint8_t> data) const {
  for (const auto& slab : slabs_) {
    if (const auto offset = slab->OffsetOf(data)) return SlabPlace{slab, *offset};
  }
  return std::nullopt;
}

void SlabArena::Reset() {
  const size_t kept_bytes = slabs_.empty() ? 0 : slabs_.back()->size();
  if (batch_bytes_ > std::max(kGreatestKeptBytes, kept_bytes / 2)) {
    smaller_left_ = std::min(smaller_left_ + kForAHugeBatch, kMostSmaller);
  } else if (batch_bytes_ > 0) {
    smaller_left_ = std::max(smaller_left_ - 1, 0);
  }
  if (slabs_.size() > 1) slabs_.erase(slabs_.begin(), slabs_.end() - 1);  // the greatest stays
  if (kept_bytes > kGreatestKeptBytes && smaller_left_ <= kForAHugeBatch) slabs_.clear();
  used_bytes_ = batch_bytes_ = 0;
}

}  // namespace penstock
