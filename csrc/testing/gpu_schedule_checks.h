// What the tests that try a thousand GpuSchedules have in common: the loop, and what must hold after
// each. Needs GoogleTest.

#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include "testing/fake_gpu.h"
#include "testing/gpu_schedule.h"
#include "testing/quiet_log.h"
#include "testing/row_batch.h"

namespace penstock {

// Runs `run` with the seeds from 1 on, to the first that fails.
template <typename Run>
void RunGpuSchedules(Run run) {
  const QuietLog quiet;
  for (int seed = 1; seed <= kGpuSchedules && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    run(static_cast<uint64_t>(seed));
  }
}

// Every batch was answered, none wrongly, and none failed without a fault.
inline void ExpectRight(const Tally& tally, GpuFault fault, FakeGpu& gpu) {
  EXPECT_EQ(tally.wrong, 0);
  EXPECT_EQ(tally.odd, 0);
  EXPECT_TRUE(tally.failed == 0 || fault != GpuFault::kNone) << tally.failed;
  EXPECT_THAT(gpu.races(), ::testing::IsEmpty());
  EXPECT_EQ(gpu.pageable_copies(), 0);
}

}  // namespace penstock
