#include "memory/host_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <new>
#include <thread>
#include <vector>

namespace penstock {
namespace {

constexpr size_t kMaxPooled = 64 << 20;

TEST(HostPoolTest, Zero_IsAnEmptyBuffer) {
  HostPool pool;
  EXPECT_EQ(pool.Allocate(0).data(), nullptr);
  EXPECT_EQ(pool.idle_bytes(), 0U);
}

TEST(HostPoolTest, EverySize_IsAlignedAndWritableToItsEnd) {
  HostPool pool;
  for (size_t bits = 0; bits <= 20; ++bits) {
    const size_t at = size_t{1} << bits;
    for (const size_t size : {at - 1, at, at + 1}) {
      if (size == 0) continue;
      Buffer buffer = pool.Allocate(size);
      ASSERT_EQ(buffer.size(), size);
      ASSERT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % HostPool::kAlignment, 0U);
      std::memset(buffer.data(), 0xab, size);
    }
  }
}

TEST(HostPoolTest, ReleasedBuffer_IsUsedAgainByItsClassOnly) {
  HostPool pool;
  const uint8_t* data = pool.Allocate(1000).data();  // released at once, class 1024
  EXPECT_EQ(pool.idle_bytes(), 1024U);
  const Buffer smaller = pool.Allocate(512);
  EXPECT_EQ(pool.idle_bytes(), 1024U);
  const Buffer again = pool.Allocate(513);
  EXPECT_EQ(again.data(), data);
  EXPECT_EQ(pool.idle_bytes(), 0U);
}

TEST(HostPoolTest, SmallestClass_Is256Bytes) {
  HostPool pool;
  static_cast<void>(pool.Allocate(1));
  EXPECT_EQ(pool.idle_bytes(), 256U);
  static_cast<void>(pool.Allocate(256));
  EXPECT_EQ(pool.idle_bytes(), 256U);
}

TEST(HostPoolTest, LargestClass_IsKeptAndLargerIsNot) {
  HostPool pool(2 * kMaxPooled);
  static_cast<void>(pool.Allocate(kMaxPooled));
  EXPECT_EQ(pool.idle_bytes(), kMaxPooled);
  static_cast<void>(pool.Allocate(kMaxPooled + 1));
  EXPECT_EQ(pool.idle_bytes(), kMaxPooled);
}

TEST(HostPoolTest, IdleBytes_StayUnderTheCap) {
  HostPool pool(1024);
  {
    std::vector<Buffer> buffers;
    for (int i = 0; i < 5; ++i) buffers.push_back(pool.Allocate(512));
  }
  EXPECT_EQ(pool.idle_bytes(), 1024U);
}

TEST(HostPoolTest, Exhaustion_Throws) {
  HostPool pool;
  EXPECT_THROW(static_cast<void>(pool.Allocate(SIZE_MAX)), std::bad_alloc);
}

TEST(HostPoolTest, Threads_NeverShareABuffer) {
  HostPool pool(1 << 16);
  std::vector<std::thread> threads;
  std::vector<int> mixed(4, 0);
  for (uint8_t id = 0; id < 4; ++id) {
    threads.emplace_back([&, id] {
      for (size_t i = 0; i < 2000; ++i) {
        Buffer buffer = pool.Allocate(1 + i % 700);
        std::memset(buffer.data(), id, buffer.size());
        Buffer moved = std::move(buffer);
        mixed[id] += moved.data()[0] == id && moved.data()[moved.size() - 1] == id ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(mixed, std::vector<int>(4, 0));
  EXPECT_LE(pool.idle_bytes(), size_t{1} << 16);
}

}  // namespace
}  // namespace penstock
