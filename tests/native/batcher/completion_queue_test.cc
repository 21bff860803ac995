#include "batcher/completion_queue.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <thread>
#include <vector>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

bool IsReadable(const CompletionQueue& queue, int timeout_ms = 0) {
  pollfd descriptor{queue.fd(), POLLIN, 0};
  return poll(&descriptor, 1, timeout_ms) == 1;
}

RequestRef MakeRequest(int id) { return RequestRef(new PuppetRequest(id, nullptr)); }

std::vector<int> Take(CompletionQueue& queue) {
  std::vector<RequestRef> taken;
  queue.Take(&taken);
  std::vector<int> ids;
  for (const RequestRef& ref : taken) ids.push_back(PuppetBatcher::Of(ref).id);
  return ids;
}

TEST(CompletionQueueTest, Fresh_IsNotReadableAndEmpty) {
  CompletionQueue queue;
  EXPECT_FALSE(IsReadable(queue));
  EXPECT_TRUE(Take(queue).empty());
}

TEST(CompletionQueueTest, SignalAgain_IsReadableThoughNothingWasPushed) {
  CompletionQueue queue;
  queue.Push(MakeRequest(0));
  queue.Signal();
  EXPECT_EQ(Take(queue).size(), 1U);
  EXPECT_FALSE(IsReadable(queue));
  queue.SignalAgain();
  EXPECT_TRUE(IsReadable(queue));
  {
    const CompletionQueue::Turn turn(queue);
    EXPECT_TRUE(Take(queue).empty());
    queue.SignalAgain();
  }
  EXPECT_TRUE(IsReadable(queue));
}

TEST(CompletionQueueTest, Push_IsReadableAfterSignalOnly) {
  CompletionQueue queue;
  queue.Push(MakeRequest(0));
  EXPECT_FALSE(IsReadable(queue));
  queue.Signal();
  EXPECT_TRUE(IsReadable(queue));
}

TEST(CompletionQueueTest, SignalWithoutPush_WritesNothing) {
  CompletionQueue queue;
  queue.Signal();
  EXPECT_FALSE(IsReadable(queue));
  queue.Push(MakeRequest(0));
  queue.Signal();
  EXPECT_EQ(Take(queue), std::vector<int>{0});
  queue.Signal();
  EXPECT_FALSE(IsReadable(queue));
}

TEST(CompletionQueueTest, Take_GivesAllOldestFirstAndClears) {
  CompletionQueue queue;
  for (int id = 0; id < 3; ++id) queue.Push(MakeRequest(id));
  queue.Signal();
  EXPECT_EQ(Take(queue), (std::vector<int>{0, 1, 2}));
  EXPECT_FALSE(IsReadable(queue));
  EXPECT_TRUE(Take(queue).empty());
}

TEST(CompletionQueueTest, Take_DropsWhatTheCallersVectorHeld) {
  CompletionQueue queue;
  std::vector<RequestRef> taken = {MakeRequest(9)};
  queue.Push(MakeRequest(1));
  queue.Take(&taken);
  ASSERT_EQ(taken.size(), 1U);
  EXPECT_EQ(PuppetBatcher::Of(taken[0]).id, 1);
}

TEST(CompletionQueueTest, TurnThatTakes_SignalsNothing) {
  CompletionQueue queue;
  {
    const CompletionQueue::Turn turn(queue);
    queue.Push(MakeRequest(1));
    queue.Signal();
    EXPECT_FALSE(IsReadable(queue));
    EXPECT_EQ(Take(queue), std::vector<int>{1});
  }
  EXPECT_FALSE(IsReadable(queue));
}

TEST(CompletionQueueTest, TurnLeftWithoutTaking_SignalsAtItsEnd) {
  CompletionQueue queue;
  {
    const CompletionQueue::Turn turn(queue);
    queue.Push(MakeRequest(1));
    queue.Signal();
  }
  EXPECT_TRUE(IsReadable(queue));
}

// The reader polls as an event loop does: a lost signal would leave it in poll for ever.
TEST(CompletionQueueTest, Threads_NoSignalIsLost) {
  constexpr int kPerThread = 3000;
  CompletionQueue queue;
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPerThread; ++i) {
        queue.Push(MakeRequest(t * kPerThread + i));
        if (i % 3 == 2) queue.Signal();
      }
    });
  }
  std::vector<int> seen(3 * kPerThread, 0);
  size_t count = 0;
  while (count < seen.size()) {
    ASSERT_TRUE(IsReadable(queue, -1));
    for (const int id : Take(queue)) {
      ++seen[id];
      ++count;
    }
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(seen, std::vector<int>(seen.size(), 1));
}

}  // namespace
}  // namespace penstock
