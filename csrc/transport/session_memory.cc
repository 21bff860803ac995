#include "transport/session_memory.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

namespace penstock {

// In front of each block. While the block is idle `next` links it, else `memory` owns it.
struct alignas(16) SessionMemory::Header {
  union {
    SessionMemory* memory;
    Header* next;
  };
  size_t size;  // of the block behind it
};

SessionMemory::SessionMemory()
    : callbacks_{
          this,
          [](size_t size, void* self) { return static_cast<SessionMemory*>(self)->Allocate(size); },
          [](void* block, void*) { Free(block); },
          [](size_t count, size_t size, void* self) -> void* {
            if (size != 0 && count > SIZE_MAX / size) return nullptr;
            void* const block = static_cast<SessionMemory*>(self)->Allocate(count * size);
            if (block != nullptr) std::memset(block, 0, count * size);
            return block;
          },
          &Reallocate} {}

SessionMemory::~SessionMemory() {
  for (Header* first : idle_) {
    while (first != nullptr) {
      Header* const next = first->next;
      std::free(first);
      first = next;
    }
  }
}

void* SessionMemory::Allocate(size_t size) {
  const size_t bits =
      std::max<size_t>(kMinClassBits, std::bit_width(std::max<size_t>(size, 1) - 1));
  Header* header = nullptr;
  if (bits <= kMaxClassBits) {
    size = size_t{1} << bits;
    Header*& first = idle_[bits - kMinClassBits];
    if (first != nullptr) {
      header = first;
      first = header->next;
      idle_bytes_ -= size;
    }
  }
  if (header == nullptr) {
    if (size > SIZE_MAX - sizeof(Header)) return nullptr;
    header = static_cast<Header*>(std::malloc(sizeof(Header) + size));
    if (header == nullptr) return nullptr;
  }
  header->memory = this;
  header->size = size;
  return header + 1;
}

void SessionMemory::Free(void* block) noexcept {
  if (block == nullptr) return;
  Header* const header = static_cast<Header*>(block) - 1;
  SessionMemory& memory = *header->memory;
  const size_t size = header->size;
  if (size > (size_t{1} << kMaxClassBits) || memory.idle_bytes_ + size > kMaxIdleBytes) {
    std::free(header);
    return;
  }
  Header*& first = memory.idle_[static_cast<size_t>(std::bit_width(size - 1)) - kMinClassBits];
  header->next = first;
  first = header;
  memory.idle_bytes_ += size;
}

void* SessionMemory::Reallocate(void* block, size_t size, void* memory) {
  if (block != nullptr && (static_cast<Header*>(block) - 1)->size >= size) return block;
  void* const larger = static_cast<SessionMemory*>(memory)->Allocate(size);
  if (larger == nullptr || block == nullptr) return larger;
  std::memcpy(larger, block, (static_cast<Header*>(block) - 1)->size);
  Free(block);
  return larger;
}

}  // namespace penstock
