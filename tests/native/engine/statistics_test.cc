#include "engine/statistics.h"

#include <gtest/gtest.h>

#include "engine_harness.h"

namespace penstock {
namespace {

constexpr int64_t kUs = 1000;

TEST(HistogramTest, Bounds_AreInclusiveAndTheLastCountIsTheRest) {
  Histogram histogram;
  histogram.Add(0);
  histogram.Add(50 * kUs);
  histogram.Add(50 * kUs + 999);  // whole microseconds count
  histogram.Add(51 * kUs, 3);
  histogram.Add(10'000'000 * kUs);
  histogram.Add(10'000'001 * kUs);
  histogram.Add(-5);  // clocks do not go back, but nor do counters
  EXPECT_EQ(histogram.counts[0], 4U);
  EXPECT_EQ(histogram.counts[1], 3U);
  EXPECT_EQ(histogram.counts[kHistogramBoundsUs.size() - 1], 1U);
  EXPECT_EQ(histogram.counts[kHistogramBoundsUs.size()], 1U);
  EXPECT_EQ(histogram.sum_us, 50U + 50 + 3 * 51 + 10'000'000 + 10'000'001);
}

class StatisticsTest : public testing::Test {
 protected:
  StatisticsTest() {
    for (const int64_t received_ns : {0, 10}) {
      batch_.requests.push_back(InferRequestPool::Shared().Get());
      AsInfer(batch_.requests.back()).received_ns = received_ns;
      AsInfer(batch_.requests.back()).rows = received_ns == 0 ? 2 : 3;
    }
    batch_.rows = 5;
  }

  Batch batch_;
  const BatchTimes times_{.start_ns = 100, .gathered_ns = 110, .computed_ns = 140, .end_ns = 160};
  StatisticsRecorder recorder_;
};

TEST_F(StatisticsTest, SuccessfulBatch_CountsRequestsRowsAndPhases) {
  recorder_.RecordBatch(batch_, times_, std::vector<Status>(2), 0, 1234);
  const VersionStatistics s = recorder_.Snapshot();
  EXPECT_EQ(s.execution_count, 1U);
  EXPECT_EQ(s.inference_count, 5U);
  EXPECT_EQ(s.last_inference_ms, 1234);
  EXPECT_EQ(s.busy_ns, 60U);
  EXPECT_EQ(s.success.count, 2U);
  EXPECT_EQ(s.success.ns, 160U + 150U);
  EXPECT_EQ(s.queue.count, 2U);
  EXPECT_EQ(s.compute_input.ns, 2U * 10);
  EXPECT_EQ(s.compute_infer.ns, 2U * 30);
  EXPECT_EQ(s.compute_output.ns, 2U * 20);
  EXPECT_EQ(s.batches.at(5).count, 1U);
  EXPECT_EQ(s.batches.at(5).compute_infer_ns, 30U);
  EXPECT_EQ(s.fail.count, 0U);
}

TEST_F(StatisticsTest, EachPhaseHasItsDistribution) {
  const BatchTimes times{.start_ns = 100 * kUs,
                         .gathered_ns = 160 * kUs,
                         .computed_ns = 460 * kUs,
                         .end_ns = 1660 * kUs};
  recorder_.RecordBatch(batch_, times, std::vector<Status>(2), 0, 1234);
  const VersionStatistics s = recorder_.Snapshot();
  EXPECT_EQ(s.input_us.counts[1], 2U);  // 60 us
  EXPECT_EQ(s.input_us.sum_us, 120U);
  EXPECT_EQ(s.infer_us.counts[3], 2U);  // 300 us
  EXPECT_EQ(s.infer_us.sum_us, 600U);
  EXPECT_EQ(s.output_us.counts[5], 2U);  // 1200 us
  EXPECT_EQ(s.output_us.sum_us, 2400U);
  EXPECT_EQ(s.compute_us.sum_us, 3120U);
}

TEST_F(StatisticsTest, FailedBatch_CountsFailuresOnly) {
  recorder_.RecordBatch(batch_, times_, std::vector<Status>(2, Internal("x")), 0, 1234);
  const VersionStatistics s = recorder_.Snapshot();
  EXPECT_EQ(s.fail.count, 2U);
  EXPECT_EQ(s.failures.at(StatusCode::kInternal), 2U);
  EXPECT_EQ(s.success.count, 0U);
  EXPECT_EQ(s.execution_count, 0U);
  EXPECT_EQ(s.inference_count, 0U);
  EXPECT_EQ(s.last_inference_ms, 0);
  EXPECT_EQ(s.busy_ns, 60U);
}

TEST_F(StatisticsTest, BatchThatServedSome_CountsEachRequestAsItEnded) {
  recorder_.RecordBatch(batch_, times_, std::vector<Status>{Status(), InvalidArgument("x")}, 0,
                        1234);
  const VersionStatistics s = recorder_.Snapshot();
  EXPECT_EQ(s.success.count, 1U);
  EXPECT_EQ(s.fail.count, 1U);
  EXPECT_EQ(s.failures.at(StatusCode::kInvalidArgument), 1U);
  EXPECT_EQ(s.execution_count, 1U);
  EXPECT_EQ(s.inference_count, 2U);
  EXPECT_EQ(s.compute_infer.count, 1U);
  EXPECT_EQ(s.batches.at(2).count, 1U);
  EXPECT_EQ(s.busy_ns, 60U);
}

TEST_F(StatisticsTest, Refusal_CountsByCode) {
  recorder_.RecordRefusal(AsInfer(batch_.requests[0]), StatusCode::kUnavailable, 7);
  EXPECT_EQ(recorder_.Snapshot().fail.ns, 7U);
  EXPECT_EQ(recorder_.Snapshot().failures.at(StatusCode::kUnavailable), 1U);
}

TEST_F(StatisticsTest, Background_IsCountedApart) {
  batch_.requests[1]->is_background = true;  // of 3 rows, behind one of 2
  recorder_.RecordBatch(batch_, times_, std::vector<Status>(2), 0, 1234);
  VersionStatistics s = recorder_.Snapshot();
  EXPECT_EQ(s.success.count, 1U);
  EXPECT_EQ(s.queue_us.counts[0], 1U);
  EXPECT_EQ(s.compute_infer.count, 1U);
  EXPECT_EQ(s.inference_count, 2U);
  EXPECT_EQ(s.batches.at(5).count, 1U);
  EXPECT_EQ(s.background.rows, 3U);
  EXPECT_EQ(s.background.batches, 0U);
  batch_.requests[0]->is_background = true;
  batch_.reason = CloseReason::kBackground;
  recorder_.RecordBatch(batch_, times_, std::vector<Status>{Status(), Internal("x")}, 0, 5678);
  recorder_.RecordRefusal(AsInfer(batch_.requests[0]), StatusCode::kUnavailable, 7);
  s = recorder_.Snapshot();
  EXPECT_EQ(s.success.count + s.fail.count + s.failures.size(), 1U);
  EXPECT_EQ(s.execution_count, 1U);
  EXPECT_EQ(s.last_inference_ms, 1234);
  EXPECT_EQ(s.busy_ns, 120U);
  EXPECT_EQ(s.background.success, 2U);
  EXPECT_EQ(s.background.fail, 2U);
  EXPECT_EQ(s.background.rows, 5U);
  EXPECT_EQ(s.background.batches, 1U);
  EXPECT_EQ(s.background.busy_ns, 60U);
}

TEST_F(StatisticsTest, BatchThatServedOnlyThoseThatJoined_IsAnExecution) {
  batch_.requests[1]->is_background = true;  // of 3 rows, behind one of 2
  recorder_.RecordBatch(batch_, times_, std::vector<Status>{Internal("x"), Status()}, 0, 1234);
  const VersionStatistics s = recorder_.Snapshot();
  EXPECT_EQ(s.execution_count, 1U);
  EXPECT_EQ(s.batches.at(3).count, 1U);
  EXPECT_EQ(s.compute_infer.count, 0U);
  EXPECT_EQ(s.inference_count, 0U);
  EXPECT_EQ(s.last_inference_ms, 0);
  EXPECT_EQ(s.fail.count, 1U);
  EXPECT_EQ(s.background.rows, 3U);
}

TEST(VersionCountersTest, RequestsOfEveryKind_Balance) {
  EngineHarness harness;
  const auto version = harness.Serve(IdentitySpec());
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(harness.Run(InferMessage().Row({1})).status.ok());
  ASSERT_FALSE(harness.Run(InferMessage().Input("IN", "INT8", {1, 1}, "x")).status.ok());
  ASSERT_FALSE(harness.Run(InferMessage("other").Row({1})).status.ok());
  const VersionStatistics s = version->statistics();
  EXPECT_EQ(s.success.count, 3U);
  EXPECT_EQ(s.fail.count, 1U);
  EXPECT_EQ(version->counters().accepted, 3U);
  const auto completed = harness.engine.completed();
  EXPECT_EQ(completed.at(StatusCode::kOk), 3U);
  EXPECT_EQ(completed.at(StatusCode::kInvalidArgument), 1U);
  EXPECT_EQ(completed.at(StatusCode::kNotFound), 1U);
  EXPECT_EQ(harness.engine.admission().admitted(), 5U);
  EXPECT_EQ(harness.engine.admission().inflight(), 0U);
}

}  // namespace
}  // namespace penstock
