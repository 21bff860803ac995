// SessionMemory: small blocks that one I/O thread uses again: nghttp2's and those of calls.

#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>

namespace penstock {

// Blocks in power-of-two classes from 32 bytes to 4 KiB; larger ones go to the system and back.
// Threading: confined to its I/O thread.
// Ownership: the blocks handed out must be back before it goes.
class SessionMemory {
 public:
  SessionMemory();
  ~SessionMemory();
  SessionMemory(const SessionMemory&) = delete;
  SessionMemory& operator=(const SessionMemory&) = delete;

  void* Allocate(size_t size);  // null when the system has no memory
  // Gives a block back, to the memory that it came from.
  static void Free(void* block) noexcept;

  // For nghttp2_session_server_new3.
  nghttp2_mem* nghttp2() { return &callbacks_; }

 private:
  static constexpr size_t kMinClassBits = 5;
  static constexpr size_t kMaxClassBits = 12;
#ifdef PENSTOCK_ADDRESS_SANITIZER
  static constexpr size_t kMaxIdleBytes = 0;  // a block used after its end is to be seen
#else
  static constexpr size_t kMaxIdleBytes = size_t{1} << 20;
#endif

  struct Header;
  static void* Reallocate(void* block, size_t size, void* memory);

  nghttp2_mem callbacks_;
  size_t idle_bytes_ = 0;
  std::array<Header*, kMaxClassBits - kMinClassBits + 1> idle_{};
};

}  // namespace penstock
