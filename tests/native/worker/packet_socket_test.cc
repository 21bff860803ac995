// Limits in time of a connection to a worker.

#include "worker/packet_socket.h"

#include <gtest/gtest.h>

#include "base/clock.h"
#include "worker/batch_channel.h"

namespace penstock {
namespace {

TEST(PacketSocketTest, ShortestLimit_IsALimit) {
  auto ends = PacketSocket::MakeEnds();
  ASSERT_TRUE(ends.ok());
  const PacketSocket socket(std::move(ends->first));
  socket.SetReceiveLimit(1);
  WorkerPacket packet;
  EXPECT_EQ(socket.Receive(/*wait=*/true, &packet), PacketSocket::Received::kNothing);
}

TEST(PacketSocketTest, AwaitPacket_SeesOneAndTheTime) {
  auto ends = PacketSocket::MakeEnds();
  ASSERT_TRUE(ends.ok());
  const PacketSocket socket(std::move(ends->first));
  const PacketSocket other(std::move(ends->second));
  EXPECT_FALSE(socket.AwaitPacket(Clock::System().NowNs() + 1));
  ASSERT_TRUE(other.Send({.kind = WorkerPacketKind::kReady}));
  EXPECT_TRUE(socket.AwaitPacket(kNever));
  EXPECT_TRUE(socket.AwaitPacket(0));
}

// One that asks for memory, and again, is not given the limit anew each time.
TEST(BatchChannelTest, LimitOfABatch_IsThatOfAllItsPackets) {
  auto ends = PacketSocket::MakeEnds();
  ASSERT_TRUE(ends.ok());
  const PacketSocket socket(std::move(ends->first));
  const PacketSocket other(std::move(ends->second));
  BatchChannel channel(socket);
  ASSERT_TRUE(other.Send({.kind = WorkerPacketKind::kGrow, .size = 1}));
  // The socket itself has no limit here: only the channel's can end this.
  EXPECT_EQ(channel.AwaitDone(1, 1, 1'000'000).status().code(), StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace penstock
