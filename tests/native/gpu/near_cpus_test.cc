#include "gpu/near_cpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <vector>

#include "base/strcat.h"
#include "testing/fake_cpus.h"

namespace penstock::gpu {
namespace {

using ::testing::ElementsAre;
using ::testing::Optional;

class NearCpusTest : public ::testing::Test {
 protected:
  void Write(const std::string& cpus) { cpus_.Write("0000:1b:00.0", cpus); }
  bool Bind(const std::string& pci_bus_id = "0000:1b:00.0") {
    return BindThreadsNear(pci_bus_id, cpus_.sysfs());
  }

  FakeCpus cpus_;
};

TEST_F(NearCpusTest, Threads_AreLeftTheCpusNearTheDevice) {
  const int near = FakeCpus::OfThisThread().back();
  if (FakeCpus::OfThisThread().size() == 1) GTEST_SKIP() << "this machine has one CPU";
  Write(StrCat(near, ",4000-4001"));  // with some that this machine has not
  std::promise<void> is_bound;
  auto other = std::async(std::launch::async, [&] {
    is_bound.get_future().wait();
    return FakeCpus::OfThisThread();
  });
  EXPECT_TRUE(Bind("0000:1B:00.0"));
  is_bound.set_value();
  EXPECT_THAT(FakeCpus::OfThisThread(), ElementsAre(near));
  EXPECT_THAT(other.get(), ElementsAre(near)) << "that was there before";
  EXPECT_THAT(std::async(std::launch::async, FakeCpus::OfThisThread).get(), ElementsAre(near));
  EXPECT_FALSE(Bind()) << "they are there";
}

TEST_F(NearCpusTest, ThreadThatWasPutElsewhere_StaysThere) {
  Write("4000-4095");
  const auto before = FakeCpus::OfThisThread();
  EXPECT_FALSE(Bind());
  EXPECT_EQ(FakeCpus::OfThisThread(), before);
}

TEST_F(NearCpusTest, MachineThatDoesNotTell_LeavesThreadsWhereTheyAre) {
  const auto before = FakeCpus::OfThisThread();
  EXPECT_FALSE(Bind());
  for (const char* text : {"", "no list"}) {
    Write(text);
    EXPECT_FALSE(Bind());
  }
  EXPECT_EQ(FakeCpus::OfThisThread(), before);
}

TEST(CpuListTest, List_IsReadAsLinuxWritesIt) {
  EXPECT_THAT(ParseCpuList("0"), Optional(ElementsAre(0)));
  EXPECT_THAT(ParseCpuList("0-2,8,10-11"), Optional(ElementsAre(0, 1, 2, 8, 10, 11)));
  for (const char* text : {"", ",", "1,", "2-1", "-1", "1-", "0 1", "0-99999999", "99999999999"}) {
    EXPECT_EQ(ParseCpuList(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace penstock::gpu
