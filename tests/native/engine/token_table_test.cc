#include "engine/token_table.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock {
namespace {

PrincipalRef Named(const std::string& name) {
  return std::make_shared<const Principal>(Principal{name, {}, {}, 0});
}

std::string NameOf(const std::shared_ptr<const Verdict>& verdict) {
  return verdict == nullptr ? "nobody" : std::get<PrincipalRef>(*verdict)->name;
}

TEST(TokenTableTest, Verdict_HoldsUntilItsTime) {
  TokenTable table(10);
  table.Put(Sha256("a"), Named("A"), 100);
  EXPECT_EQ(NameOf(table.Find(Sha256("a"), 99)), "A");
  EXPECT_EQ(table.Find(Sha256("a"), 100), nullptr);
  EXPECT_EQ(table.Find(Sha256("b"), 0), nullptr);
}

TEST(TokenTableTest, SecondVerdict_ReplacesTheFirst) {
  TokenTable table(10);
  table.Put(Sha256("a"), Named("A"), 100);
  table.Put(Sha256("a"), Named("B"), 200);
  EXPECT_EQ(NameOf(table.Find(Sha256("a"), 150)), "B");
  EXPECT_EQ(table.size(), 1U);
}

TEST(TokenTableTest, Bound_HoldsAndTheOldestGoes) {
  TokenTable table(2);
  for (const char* name : {"a", "b", "c"}) table.Put(Sha256(name), Named(name), 100);
  EXPECT_EQ(table.size(), 2U);
  EXPECT_EQ(table.Find(Sha256("a"), 0), nullptr);
  EXPECT_EQ(NameOf(table.Find(Sha256("c"), 0)), "c");
}

TEST(TokenTableTest, Clear_ForgetsAll) {
  TokenTable table(2);
  table.Put(Sha256("a"), Unauthenticated("no"), 100);
  table.Clear();
  EXPECT_EQ(table.Find(Sha256("a"), 0), nullptr);
}

}  // namespace
}  // namespace penstock
