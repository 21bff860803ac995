#include "gpu/pinned_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "testing/fake_gpu.h"

namespace penstock::gpu {
namespace {

using ::testing::HasSubstr;

struct Pool {
  explicit Pool(std::vector<PinnedPool::BlockClass> classes)
      : pool(std::move(*PinnedPool::Create(gpu, health, std::move(classes)))) {}

  FakeGpu gpu;
  DeviceHealth health{gpu, "GPU 0"};
  std::unique_ptr<PinnedPool> pool;
};

TEST(PinnedPoolTest, Blocks_AreAlignedPinnedAndApart) {
  Pool p({{.block_bytes = 1000, .blocks = 2}, {.block_bytes = 100, .blocks = 2}});
  std::vector<Buffer> blocks;
  for (const size_t size : {1000U, 1000U, 100U, 100U}) {
    blocks.push_back(std::move(*p.pool->TryAcquire(size)));
    EXPECT_EQ(blocks.back().size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(blocks.back().data()) % PinnedPool::kAlignment, 0U);
    std::memset(blocks.back().data(), static_cast<int>(blocks.size()), size);
  }
  for (size_t i = 0; i < blocks.size(); ++i) {
    EXPECT_EQ(blocks[i].data()[0], i + 1);
    EXPECT_EQ(blocks[i].data()[blocks[i].size() - 1], i + 1);
  }
  EXPECT_EQ(p.pool->usage().size_bytes, 2 * 1024U + 2 * 256U);
  EXPECT_EQ(p.gpu.live_objects(), 1U) << "one block for all";
}

TEST(PinnedPoolTest, SmallBlock_IsTakenFromALargerClassWhenItsOwnIsEmpty) {
  Pool p({{.block_bytes = 256, .blocks = 1}, {.block_bytes = 512, .blocks = 1}});
  auto small = p.pool->TryAcquire(10);
  auto large = p.pool->TryAcquire(10);
  ASSERT_TRUE(small.ok() && large.ok());
  EXPECT_EQ(p.pool->TryAcquire(10).status().code(), StatusCode::kResourceExhausted);
  large = Result<Buffer>(Buffer());  // and comes back to the class that it is of
  EXPECT_TRUE(p.pool->TryAcquire(512).ok());
}

TEST(PinnedPoolTest, EqualClasses_AreOne) {
  Pool p({{.block_bytes = 250, .blocks = 1}, {.block_bytes = 256, .blocks = 2}});
  std::vector<Buffer> blocks;
  for (int i = 0; i < 3; ++i) blocks.push_back(std::move(*p.pool->TryAcquire(256)));
  blocks.clear();
  EXPECT_EQ(p.pool->usage().blocks_in_use, 0U);
  for (int i = 0; i < 3; ++i) blocks.push_back(std::move(*p.pool->TryAcquire(256)));
}

TEST(PinnedPoolTest, Exhausted_IsToldAndCountedAndNothingElseIsUsed) {
  Pool p({{.block_bytes = 256, .blocks = 1}});
  const Buffer taken = std::move(*p.pool->TryAcquire(256));
  const auto refused = p.pool->TryAcquire(256);
  EXPECT_EQ(refused.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("1 of 1"));
  EXPECT_EQ(p.pool->usage().exhausted, 1U);
  EXPECT_EQ(p.gpu.live_objects(), 1U);
}

TEST(PinnedPoolTest, ImpossibleSize_IsRefusedAtOnce) {
  Pool p({{.block_bytes = 256, .blocks = 1}});
  for (const size_t size : {size_t{0}, size_t{257}, SIZE_MAX}) {
    EXPECT_EQ(p.pool->TryAcquire(size).status().code(), StatusCode::kInvalidArgument);
  }
}

TEST(PinnedPoolTest, Create_RefusesNothingAndTooMuch) {
  FakeGpu gpu;
  DeviceHealth health(gpu, "GPU 0");
  for (const std::vector<PinnedPool::BlockClass>& classes :
       {std::vector<PinnedPool::BlockClass>{},
        {{.block_bytes = 256, .blocks = 0}},
        {{.block_bytes = 0, .blocks = 1}},
        {{.block_bytes = SIZE_MAX, .blocks = 1}},
        {{.block_bytes = SIZE_MAX / 2, .blocks = 4}}}) {
    const auto pool = PinnedPool::Create(gpu, health, classes);
    EXPECT_EQ(pool.status().code(), StatusCode::kInvalidArgument);
  }
  gpu.FailCall("AllocatePinned", 1, Error::kMemoryAllocation);
  const auto pool = PinnedPool::Create(gpu, health, {{256, 1}});
  EXPECT_EQ(pool.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(pool.status().message()), HasSubstr("pin 256 bytes"));
}

TEST(PinnedPoolTest, Destroyed_GivesItsMemoryBack) {
  FakeGpu gpu;
  DeviceHealth health(gpu, "GPU 0");
  { const auto pool = PinnedPool::Create(gpu, health, {{256, 4}}); }
  EXPECT_EQ(gpu.live_objects(), 0U);
}

}  // namespace
}  // namespace penstock::gpu
