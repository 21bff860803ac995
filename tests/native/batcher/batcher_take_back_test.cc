// Requests that are given back, for another queue to run.

#include <gtest/gtest.h>

#include "testing/puppet_batcher.h"

namespace penstock {
namespace {

std::vector<int> IdsOf(const std::vector<RequestRef>& requests) {
  std::vector<int> ids;
  for (const RequestRef& ref : requests) ids.push_back(PuppetBatcher::Of(ref).id);
  return ids;
}

TEST(BatcherTakeBackTest, All_AreGivenBackInOrderAndNoneIsTakenAfter) {
  PuppetBatcher puppet;
  puppet.Queue();
  puppet.Queue({.is_background = true});
  puppet.Queue({.key = {2}});
  EXPECT_EQ(IdsOf(puppet.batcher().TakeBack()), (std::vector<int>{0, 2, 1}));
  EXPECT_TRUE(puppet.log().ends().empty());
  EXPECT_EQ(puppet.batcher().Enqueue(puppet.Make()).code(), StatusCode::kFailedPrecondition);
}

TEST(BatcherTakeBackTest, Some_AreGivenBackAndTheOthersWaitOn) {
  PuppetBatcher puppet;
  for (const int64_t key : {1, 2, 1, 2}) puppet.Queue({.key = {key}});
  puppet.Queue({.key = {2}, .is_background = true});
  const auto is_two = [](const Request& request) { return request.key == BatchKey{2}; };
  EXPECT_EQ(IdsOf(puppet.batcher().TakeBackIf(is_two)), (std::vector<int>{1, 3, 4}));
  EXPECT_EQ(puppet.batcher().counters().pending, 2U);
  EXPECT_EQ(puppet.batcher().counters().background.pending, 0U);
  EXPECT_TRUE(puppet.batcher().Enqueue(puppet.Make()).ok());
}

TEST(BatcherTakeBackTest, OneGivenBack_NeitherExpiresNorIsCancelledThere) {
  PuppetBatcher puppet;
  const RequestRef taken = puppet.Queue({.deadline_ns = puppet.clock().NowNs() + 10});
  puppet.batcher().TakeBackIf([](const Request&) { return true; });
  EXPECT_EQ(puppet.batcher().ExpireDue(), kNever);
  puppet.batcher().Cancel(*taken);
  EXPECT_TRUE(puppet.log().ends().empty());
  EXPECT_EQ(puppet.batcher().Enqueue(taken).code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace penstock
