#include "worker/slab.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <string>

namespace penstock {
namespace {

TEST(SlabTest, MadeSlab_CanNeitherShrinkNorGrow) {
  const auto slab = Slab::Create(5000);
  ASSERT_TRUE(slab.ok());
  EXPECT_EQ((*slab)->size(), 8192U);
  EXPECT_NE(ftruncate((*slab)->fd(), 0), 0);
  EXPECT_NE(ftruncate((*slab)->fd(), 1 << 20), 0);
  EXPECT_NE(fcntl((*slab)->fd(), F_ADD_SEALS, F_SEAL_WRITE), 0);
  std::memset((*slab)->data(), 1, (*slab)->size());
}

TEST(SlabTest, Document_CannotBeWritten) {
  const auto document = Slab::CreateDocument("{}");
  ASSERT_TRUE(document.ok());
  EXPECT_NE(pwrite(document->get(), "x", 1, 0), 1);
  char read[4];
  EXPECT_EQ(pread(document->get(), read, sizeof(read), 0), 2);
}

TEST(SlabTest, TooLarge_IsResourceExhausted) {
  EXPECT_EQ(Slab::Create(size_t{1} << 60).status().code(), StatusCode::kResourceExhausted);
}

TEST(SlabArenaTest, Allocations_AreAlignedAndFoundAgain) {
  SlabArena arena;
  const auto first = arena.Allocate(10);
  const auto second = arena.Allocate(100);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(second->data()) % SlabArena::kAlignment, 0U);
  const auto place = arena.Find(*second);
  ASSERT_TRUE(place.has_value());
  EXPECT_EQ(place->offset, SlabArena::kAlignment);
  uint8_t elsewhere[8];
  EXPECT_FALSE(arena.Find(elsewhere).has_value());
}

TEST(SlabArenaTest, BatchThatOutgrowsItsSlab_FitsIntoOneNextTime) {
  SlabArena arena;
  const auto small = arena.Allocate(SlabArena::kFirstSlabBytes);
  const auto large = arena.Allocate(SlabArena::kFirstSlabBytes);
  ASSERT_TRUE(small.ok() && large.ok());
  std::memset(small->data(), 1, small->size());  // still there
  EXPECT_NE(arena.Find(*small)->slab, arena.Find(*large)->slab);
  arena.Reset();
  const auto again = arena.Allocate(SlabArena::kFirstSlabBytes);
  const auto more = arena.Allocate(SlabArena::kFirstSlabBytes);
  EXPECT_EQ(arena.Find(*again)->slab, arena.Find(*more)->slab);
}

// The slab of a batch of that size.
std::shared_ptr<Slab> RunBatch(SlabArena& arena, size_t size_bytes) {
  const auto data = arena.Allocate(size_bytes);
  EXPECT_TRUE(data.ok());
  auto slab = arena.Find(*data)->slab;
  arena.Reset();
  return slab;
}

TEST(SlabArenaTest, SlabOfALargeBatch_IsAQuarterLargerAtMost) {
  SlabArena arena;
  EXPECT_EQ(RunBatch(arena, 9 << 20)->size(), 10U << 20);
  EXPECT_EQ(RunBatch(arena, 14 << 20)->size(), 14U << 20);
  EXPECT_EQ(RunBatch(arena, SlabArena::kGreatestKeptBytes)->size(), SlabArena::kGreatestKeptBytes);
}

TEST(SlabArenaTest, HugeSlab_GoesWithItsBatch) {
  SlabArena arena;
  EXPECT_FALSE(RunBatch(arena, SlabArena::kGreatestKeptBytes + 1)->is_lasting());
  EXPECT_EQ(RunBatch(arena, 1)->size(), SlabArena::kFirstSlabBytes);
}

TEST(SlabArenaTest, HugeSlab_StaysWhereSuchBatchesAreUsual) {
  SlabArena arena;
  constexpr size_t kHuge = SlabArena::kGreatestKeptBytes + 1;
  RunBatch(arena, kHuge);
  const auto second = RunBatch(arena, kHuge);
  EXPECT_TRUE(second->is_lasting());
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 7; ++i) EXPECT_EQ(RunBatch(arena, 1), second) << round << " " << i;
    EXPECT_EQ(RunBatch(arena, kHuge), second) << round;
  }
  for (int i = 0; i < 8; ++i) EXPECT_EQ(RunBatch(arena, 1), second) << i;
  EXPECT_EQ(RunBatch(arena, 1)->size(), SlabArena::kFirstSlabBytes);
}

TEST(SlabArenaTest, SlabOfAGiantBatch_DoesNotStayForThoseThatAreHuge) {
  SlabArena arena;
  constexpr size_t kHuge = SlabArena::kGreatestKeptBytes + 1;
  RunBatch(arena, kHuge);
  RunBatch(arena, kHuge);
  const auto giant = RunBatch(arena, 4 * kHuge);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(RunBatch(arena, kHuge), giant) << i;
  EXPECT_LT(RunBatch(arena, kHuge)->size(), 2 * kHuge);
}

}  // namespace
}  // namespace penstock
