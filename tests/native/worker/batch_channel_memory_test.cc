// A server without memory where a worker asks for more of it.
// Allocations are made to fail one after the other, by this program's own operator new.

#include <gtest/gtest.h>

#include <utility>

#include "testing/scarce_memory.h"
#include "worker/batch_channel.h"

namespace penstock {
namespace {

TEST(BatchChannelMemoryTest, GrowWithoutMemory_IsAnsweredOnceAndWhatThereWasStays) {
  auto ends = PacketSocket::MakeEnds();
  ASSERT_TRUE(ends.ok());
  const PacketSocket ours(std::move(ends->first));
  const PacketSocket theirs(std::move(ends->second));
  BatchChannel channel(ours);
  ASSERT_TRUE(channel.Begin().ok());
  WorkerPacket first;
  ASSERT_EQ(theirs.Receive(/*wait=*/false, &first), PacketSocket::Received::kPacket);
  WorkerPacket packet;
  WorkerPacket none;
  int failures = 0;
  for (int allocations = 0; packet.kind != WorkerPacketKind::kMap; ++allocations) {
    {
      const ScarceMemory scarce(allocations);
      ASSERT_TRUE(channel.AnswerGrow(1 << 20).ok());
    }
    ASSERT_EQ(theirs.Receive(/*wait=*/false, &packet), PacketSocket::Received::kPacket);
    if (packet.kind == WorkerPacketKind::kMap) continue;
    ASSERT_EQ(theirs.Receive(/*wait=*/false, &none), PacketSocket::Received::kNothing);
    ASSERT_EQ(packet.kind, WorkerPacketKind::kNoRoom);
    ASSERT_TRUE(channel.CopyBody({.slab = first.slab, .size = 1}).ok());
    ++failures;
  }
  EXPECT_GT(failures, 0);
  EXPECT_EQ(packet.size, 1 << 20);
  // What it replaces is not kept mapped, or pinned, until there is another.
  WorkerPacket unmap;
  ASSERT_EQ(theirs.Receive(/*wait=*/false, &unmap), PacketSocket::Received::kPacket);
  EXPECT_EQ(unmap.kind, WorkerPacketKind::kUnmap);
  EXPECT_EQ(unmap.slab, first.slab);
  EXPECT_EQ(theirs.Receive(/*wait=*/false, &none), PacketSocket::Received::kNothing);
  EXPECT_TRUE(channel.CopyBody({.slab = packet.slab, .size = 1}).ok());
}

}  // namespace
}  // namespace penstock
