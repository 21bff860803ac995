#include "native/lasting_thread.h"

#include <gtest/gtest.h>

#include <thread>

namespace penstock::loadgen {
namespace {

std::thread::id IdOfWork() {
  std::thread::id id;
  LastingThread thread([&] { id = std::this_thread::get_id(); });
  thread.Join();
  return id;
}

TEST(LastingThreadTest, ThreadIsKeptForTheNextWork) {
  const std::thread::id first = IdOfWork();
  EXPECT_NE(first, std::this_thread::get_id());
  EXPECT_EQ(IdOfWork(), first);
}

TEST(LastingThreadTest, WorkAtTheSameTimeHasThreadsOfItsOwn) {
  std::thread::id outer;
  std::thread::id inner;
  LastingThread thread([&] {
    outer = std::this_thread::get_id();
    inner = IdOfWork();
  });
  thread.Join();
  EXPECT_NE(outer, inner);
}

TEST(LastingThreadTest, DestructorWaitsForTheWork) {
  bool is_done = false;
  {
    const LastingThread thread([&] { is_done = true; });
  }
  EXPECT_TRUE(is_done);
}

}  // namespace
}  // namespace penstock::loadgen
