// Buffer: a run of bytes that knows who frees it.

#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

namespace penstock {

// Threading: thread-compatible; may be released on another thread than it was made on.
// Ownership: owns its bytes through `release`, called once with `context` and the data pointer.
class Buffer {
 public:
  using Release = void (*)(void* context, void* data, size_t capacity_bytes) noexcept;

  Buffer() = default;
  Buffer(void* data, size_t size_bytes, size_t capacity_bytes, Release release, void* context)
      : data_(static_cast<uint8_t*>(data)),
        size_bytes_(size_bytes),
        capacity_bytes_(capacity_bytes),
        release_(release),
        context_(context) {}
  Buffer(Buffer&& other) noexcept { Swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    Swap(taken);
    return *this;
  }
  ~Buffer() {
    if (release_ != nullptr) release_(context_, data_, capacity_bytes_);
  }

  uint8_t* data() { return data_; }
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_bytes_; }
  std::span<uint8_t> span() { return {data_, size_bytes_}; }
  std::span<const uint8_t> span() const { return {data_, size_bytes_}; }

  // Holds the first `size_bytes` from now on; the memory behind them stays taken.
  // REQUIRES: size_bytes <= size().
  void Truncate(size_t size_bytes) {
    assert(size_bytes <= size_bytes_);
    size_bytes_ = size_bytes;
  }

 private:
  void Swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_bytes_, other.size_bytes_);
    std::swap(capacity_bytes_, other.capacity_bytes_);
    std::swap(release_, other.release_);
    std::swap(context_, other.context_);
  }

  uint8_t* data_ = nullptr;
  size_t size_bytes_ = 0;
  size_t capacity_bytes_ = 0;
  Release release_ = nullptr;
  void* context_ = nullptr;
};

}  // namespace penstock
