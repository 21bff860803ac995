// A submitter without memory: the request is refused untouched, and the queue is as it was.
// Allocations are made to fail one after the other, by this program's own operator new.

#include <gtest/gtest.h>

#include <new>

#include "testing/puppet_batcher.h"
#include "testing/scarce_memory.h"

namespace penstock {
namespace {

// Enqueues with no more than `allocations`; false where they did not do.
bool EnqueueWith(int allocations, PuppetBatcher& puppet, const RequestRef& ref) {
  bool has_memory = true;
  bool is_accepted = false;
  try {
    const ScarceMemory scarce(allocations);
    is_accepted = puppet.batcher().Enqueue(ref).ok();
  } catch (const std::bad_alloc&) {
    has_memory = false;
  }
  EXPECT_EQ(is_accepted, has_memory);
  return has_memory;
}

TEST(BatcherMemoryTest, EnqueueWithoutMemory_LeavesRequestAndQueueAsTheyWere) {
  constexpr int kRequests = 200;
  Batcher::Options options;
  options.policy.max_batch_size = 4;
  options.preserves_ordering = true;
  PuppetBatcher puppet(options);
  int failures = 0;
  for (int i = 0; i < kRequests; ++i) {
    const RequestRef ref = puppet.Make({.key = {i / 8}, .deadline_ns = kNever - 1 - i});
    for (int allocations = 0; !EnqueueWith(allocations, puppet, ref); ++allocations) {
      ++failures;
      ASSERT_EQ(puppet.batcher().counters().pending, static_cast<size_t>(i));
    }
  }
  EXPECT_GT(failures, 0);
  for (Batch batch = puppet.Next(); !batch.requests.empty(); batch = puppet.Next()) {
    puppet.Finish(&batch);
  }
  ASSERT_EQ(puppet.log().ids().size(), static_cast<size_t>(kRequests));
  for (int i = 0; i < kRequests; ++i) EXPECT_EQ(puppet.log().ids()[i], i);
}

}  // namespace
}  // namespace penstock
