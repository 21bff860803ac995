#include "base/thread.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <string>

namespace penstock {
namespace {

std::string OwnName() {
  char name[16] = {};
  pthread_getname_np(pthread_self(), name, sizeof(name));
  return name;
}

TEST(ThreadTest, Name_IsCutToWhatTheKernelKeeps) {
  std::string name;
  Thread("ps-a-very-long-model-name", [&] { name = OwnName(); }).Join();
  EXPECT_EQ(name, "ps-a-very-long-");
}

TEST(ThreadTest, Destructor_Joins) {
  bool has_run = false;
  {
    const Thread thread("t", [&] { has_run = true; });
  }
  EXPECT_TRUE(has_run);
}

TEST(ThreadTest, Join_OfNoThreadAndTwice) {
  Thread none;
  none.Join();
  Thread moved;
  moved = Thread("t", [] {});
  moved.Join();
  moved.Join();
}

}  // namespace
}  // namespace penstock
