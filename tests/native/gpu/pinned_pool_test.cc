#include "gpu/pinned_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "testing/fake_gpu.h"
#include "testing/quiet_log.h"

namespace penstock::gpu {
namespace {

using ::testing::HasSubstr;

struct Pool {
  Pool(size_t block_bytes, size_t blocks)
      : pool(std::move(*PinnedPool::Create(gpu, health, block_bytes, blocks))) {}

  FakeGpu gpu;
  DeviceHealth health{gpu, "GPU 0"};
  std::unique_ptr<PinnedPool> pool;
};

TEST(PinnedPoolTest, Blocks_AreAlignedPinnedAndApart) {
  Pool p(/*block_bytes=*/1000, /*blocks=*/4);
  std::vector<Buffer> blocks;
  for (const size_t size : {1000U, 1024U, 100U, 1U}) {
    blocks.push_back(std::move(*p.pool->TryAcquire(size)));
    EXPECT_EQ(blocks.back().size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(blocks.back().data()) % PinnedPool::kAlignment, 0U);
    std::memset(blocks.back().data(), static_cast<int>(blocks.size()), size);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(blocks[i].data()[0], i + 1);
    EXPECT_EQ(blocks[i].data()[blocks[i].size() - 1], i + 1);
  }
  EXPECT_EQ(p.gpu.live_objects(), 1U) << "one piece of memory for all";
}

TEST(PinnedPoolTest, Block_ThatCameBackIsThereAgain) {
  Pool p(/*block_bytes=*/256, /*blocks=*/3);
  std::vector<Buffer> blocks;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 3; ++i) blocks.push_back(std::move(*p.pool->TryAcquire(256)));
    EXPECT_EQ(p.pool->TryAcquire(1).status().code(), StatusCode::kResourceExhausted);
    blocks.clear();
  }
}

TEST(PinnedPoolTest, Exhausted_IsToldAndNothingElseIsUsed) {
  Pool p(/*block_bytes=*/256, /*blocks=*/1);
  const Buffer taken = std::move(*p.pool->TryAcquire(256));
  const auto refused = p.pool->TryAcquire(256);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("all 1 are in use"));
  EXPECT_EQ(p.gpu.live_objects(), 1U);
}

TEST(PinnedPoolTest, ImpossibleSize_IsRefusedAtOnce) {
  Pool p(/*block_bytes=*/256, /*blocks=*/1);
  for (const size_t size : {size_t{0}, size_t{257}, SIZE_MAX}) {
    EXPECT_EQ(p.pool->TryAcquire(size).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST(PinnedPoolTest, Threads_NeverHaveTheSameBlock) {
  Pool p(/*block_bytes=*/256, /*blocks=*/2);
  std::vector<std::thread> threads;
  for (int t = 1; t <= 4; ++t) {
    threads.emplace_back([&p, t] {
      for (int i = 0; i < 300; ++i) {
        auto block = p.pool->TryAcquire(256);
        if (!block.ok()) continue;
        std::memset(block->data(), t, 256);
        EXPECT_EQ(block->data()[255], t);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(PinnedPoolTest, Create_RefusesNothingAndTooMuch) {
  FakeGpu gpu;
  DeviceHealth health(gpu, "GPU 0");
  const std::pair<size_t, size_t> impossible[] = {
      {256, 0}, {0, 1}, {SIZE_MAX, 1}, {SIZE_MAX / 2, 4}};
  for (const auto& [block_bytes, blocks] : impossible) {
    const auto pool = PinnedPool::Create(gpu, health, block_bytes, blocks);
    EXPECT_EQ(pool.status().code(), StatusCode::kInvalidArgument) << block_bytes;
  }
  gpu.FailCall("AllocatePinned", 1, Error::kMemoryAllocation);
  const auto pool = PinnedPool::Create(gpu, health, 256, 1);
  EXPECT_EQ(pool.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(pool.status().message()), HasSubstr("pin 256 bytes"));
}

TEST(PinnedPoolTest, Destroyed_GivesItsMemoryBack) {
  FakeGpu gpu;
  DeviceHealth health(gpu, "GPU 0");
  { const auto pool = PinnedPool::Create(gpu, health, 256, 4); }
  EXPECT_EQ(gpu.live_objects(), 0U);
}

TEST(PinnedPoolTest, LostDevice_KeepsItsMemory) {
  const QuietLog quiet;
  FakeGpu gpu;
  DeviceHealth health(gpu, "GPU 0");
  {
    const auto pool = PinnedPool::Create(gpu, health, 256, 4);
    health.Fault("it is on fire");
  }
  EXPECT_EQ(gpu.live_objects(), 1U) << "the device may still write there";
}

}  // namespace
}  // namespace penstock::gpu
