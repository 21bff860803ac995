// ScarceMemory: allocations that fail. What includes this, in one file alone, is a program whose
// `operator new` does as this says.

#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace penstock {

// While it lives, this thread gets so many pieces of memory of at least `least_bytes`, and then none;
// smaller ones it gets as ever.
// Threading: confined to its thread; one at a time.
class ScarceMemory {
 public:
  explicit ScarceMemory(int allocations, size_t least_bytes = 0) {
    t_left_ = allocations;
    t_least_bytes_ = least_bytes;
  }
  ~ScarceMemory() { t_left_ = -1; }
  ScarceMemory(const ScarceMemory&) = delete;
  ScarceMemory& operator=(const ScarceMemory&) = delete;

  static void* Allocate(size_t size) {
    if (t_left_ >= 0 && size >= t_least_bytes_ && t_left_-- == 0) {
      t_left_ = 0;
      throw std::bad_alloc();
    }
    void* data = std::malloc(size == 0 ? 1 : size);
    if (data == nullptr) throw std::bad_alloc();
    return data;
  }

 private:
  static inline thread_local int t_left_ = -1;  // -1 = no end to them
  static inline thread_local size_t t_least_bytes_ = 0;
};

}  // namespace penstock

// Not inlined: the compiler would warn of memory that goes from new to free.
[[gnu::noinline]] void* operator new(size_t size) { return penstock::ScarceMemory::Allocate(size); }
[[gnu::noinline]] void operator delete(void* data) noexcept { std::free(data); }
[[gnu::noinline]] void operator delete(void* data, size_t /*size*/) noexcept { std::free(data); }
