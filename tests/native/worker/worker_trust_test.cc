// A worker that breaks the protocol is killed; its batch fails, the server reads nothing it should not.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker_fixture.h"

namespace penstock {
namespace {

using testing::HasSubstr;

class WorkerTrust : public testing::TestWithParam<const char*> {};

TEST_P(WorkerTrust, BreachInRun_EndsTheWorkerAndFailsTheBatch) {
  const auto worker = ReadyPuppet(PuppetOptions(GetParam()));
  SlabArena arena;
  const auto got = RunFloats(*worker, &arena, {1, 2, 3});
  EXPECT_EQ(got.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(got.status().message()),
              HasSubstr("was killed, for it broke the protocol: "));
  AwaitReady(*worker, true);
}

INSTANTIATE_TEST_SUITE_P(Breaches, WorkerTrust,
                         testing::Values("short_packet", "unknown_packet", "ready_again",
                                         "wrong_batch", "body_outside", "grows_too_far",
                                         "grows_for_ever", "wrong_count", "wrong_code",
                                         "many_outputs", "wrong_dtype", "wrong_rank",
                                         "offset_outside", "size_outside", "size_of_another_shape",
                                         "negative_dim", "huge_dim", "bytes"),
                         [](const auto& info) { return std::string(info.param); });

TEST(WorkerTrustTest, DeathInTheMiddleOfAnAnswer_FailsTheBatch) {
  const auto worker = ReadyPuppet(PuppetOptions("dies_in_body"));
  SlabArena arena;
  EXPECT_EQ(RunFloats(*worker, &arena, {1}).status().code(), StatusCode::kUnavailable);
}

TEST(WorkerTrustTest, PacketsWithoutEnd_DoNotOutlastTheLoadLimit) {
  WorkerOptions options = PuppetOptions("fails_for_ever");
  options.load_limit_ns = 100 * kNsPerMs;
  const auto worker = Worker::Start(std::move(options));
  EXPECT_EQ(worker.status().code(), StatusCode::kInvalidArgument);
}

TEST(WorkerTrustTest, WorkerThatTakesNoPackets_IsKilled) {
  const auto worker = Worker::Start(PuppetOptions("grows_and_reads_nothing"));
  EXPECT_THAT(std::string(worker.status().message()), HasSubstr("was killed"));
}

TEST(WorkerTrustTest, UnreadableSignature_FailsTheLoad) {
  const auto worker = Worker::Start(PuppetOptions("bad_signature"));
  EXPECT_EQ(worker.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(worker.status().message()), HasSubstr("a signature that cannot be read"));
}

}  // namespace
}  // namespace penstock
