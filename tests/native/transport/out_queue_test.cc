#include "transport/out_queue.h"

#include <gtest/gtest.h>

#include <string>

#include "memory/host_pool.h"

namespace penstock {
namespace {

std::string Front(const OutQueue& queue, size_t most) {
  std::string front;
  queue.ForFirst(64, [&](std::span<const uint8_t> run) {
    front.append(reinterpret_cast<const char*>(run.data()), run.size());
  });
  return front.substr(0, most);
}

TEST(OutQueue, KeepsTheOrderThroughPartialWrites) {
  OutQueue queue;
  std::string expected;
  std::string written;
  for (int i = 0; i < 2000; ++i) {
    const std::string piece(static_cast<size_t>(i % 97 + 1), static_cast<char>('a' + i % 26));
    expected += piece;
    queue.Append({reinterpret_cast<const uint8_t*>(piece.data()), piece.size()});
    if (i % 3 != 0) continue;
    const std::string part = Front(queue, static_cast<size_t>(i % 61));
    queue.Drop(part.size());
    written += part;
  }
  while (!queue.empty()) {
    const std::string part = Front(queue, 1000);
    queue.Drop(part.size());
    written += part;
  }
  EXPECT_EQ(written, expected);
}

// A client that takes a little less than it is given must not make the server keep all it took.
TEST(OutQueue, ThatNeverBecomesEmptyLetsGoOfWhatWasWritten) {
  const size_t idle_before = HostPool::Shared().idle_bytes();
  OutQueue queue;
  const std::string piece(10'000, 'x');
  const auto append = [&] {
    queue.Append({reinterpret_cast<const uint8_t*>(piece.data()), piece.size()});
  };
  append();
  for (int i = 0; i < 10'000; ++i) {
    append();
    queue.Drop(piece.size());
  }
  EXPECT_EQ(queue.size(), piece.size());
  EXPECT_LE(queue.chunks(), 3U);
  EXPECT_LE(HostPool::Shared().idle_bytes(), idle_before + (1 << 20));
}

}  // namespace
}  // namespace penstock
