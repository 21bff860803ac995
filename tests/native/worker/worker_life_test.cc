// A worker's life: it is started, answers, ends in every way, and is started again or not.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <numeric>
#include <thread>

#include "worker_fixture.h"

namespace penstock {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const std::vector<float> kValues = {1, 2, 3};

TEST(WorkerLifeTest, Echo_AnswersBatchAfterBatch) {
  const auto worker = ReadyPuppet(PuppetOptions("echo"));
  EXPECT_TRUE(worker->is_ready());
  EXPECT_EQ(worker->signature().inputs.at(0).name, "INPUT0");
  SlabArena arena;
  for (int i = 0; i < 100; ++i) {
    const auto got = RunFloats(*worker, &arena, kValues);
    ASSERT_TRUE(got.ok()) << got.status().ToString();
    EXPECT_EQ(*got, kValues);
  }
}

TEST(WorkerLifeTest, LargeBatches_GrowBothSlabsAndOutputsStayWhileHeld) {
  const auto worker = ReadyPuppet(PuppetOptions("echo"));
  std::vector<float> values(1 << 20);
  std::iota(values.begin(), values.end(), 0.0F);
  const std::span bytes(reinterpret_cast<const uint8_t*>(values.data()),
                        values.size() * sizeof(float));
  const WorkerTensor input{0, {"INPUT0", DataType::kFp32, Shape{1 << 20}, bytes}};
  const size_t wanted[] = {0};
  std::vector<std::vector<WorkerAnswer>> held;
  for (size_t i = 0; i < BatchChannel::kMaxOutputSlabs + 2; ++i) {
    values[0] = static_cast<float>(i);
    SlabArena arena;
    auto answers = worker->Run({{&input, 1}, wanted, {}}, &arena);
    ASSERT_TRUE(answers.ok()) << answers.status().ToString();
    held.push_back(*std::move(answers));
  }
  for (size_t i = 0; i < held.size(); ++i) {
    const Buffer& data = held[i][0].outputs[0].data;
    ASSERT_EQ(data.size(), bytes.size());
    values[0] = static_cast<float>(i);
    EXPECT_EQ(std::memcmp(data.data(), values.data(), data.size()), 0) << i;
  }
}

TEST(WorkerLifeTest, Callers_TakeTurns) {
  const auto worker = ReadyPuppet(PuppetOptions("echo"));
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&worker, t] {
      SlabArena arena;
      const std::vector<float> own(4, static_cast<float>(t));
      for (int i = 0; i < 200; ++i) EXPECT_EQ(*RunFloats(*worker, &arena, own), own);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(WorkerLifeTest, ModelThatFailsToLoad_SaysWhy) {
  const auto worker = Worker::Start(PuppetOptions("fails"));
  EXPECT_EQ(worker.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(worker.status().message(), "model 'm' version 1: ValueError: no weights");
}

TEST(WorkerLifeTest, EndWhileLoading_SaysHow) {
  const auto worker = Worker::Start(PuppetOptions("exits_at_start"));
  EXPECT_EQ(worker.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(worker.status().message()),
              HasSubstr("its worker exited with code 3 while it loaded the model"));
}

TEST(WorkerLifeTest, EndWhileLoading_SaysTheLastLineUnlessItCrashed) {
  const auto exited = Worker::Start(PuppetOptions("complains_at_start"));
  EXPECT_EQ(exited.status().message(),
            "model 'm' version 1: its worker exited with code 127 while it loaded the model: "
            "libmissing.so: not found");
  const auto crashed = Worker::Start(PuppetOptions("complains_and_crashes"));
  EXPECT_EQ(crashed.status().message(),
            "model 'm' version 1: its worker was killed by SIGSEGV while it loaded the model");
}

TEST(WorkerLifeTest, LoadBeyondItsLimit_IsKilled) {
  auto options = PuppetOptions("never_describes");
  options.load_limit_ns = 50 * kNsPerMs;
  const auto worker = Worker::Start(std::move(options));
  EXPECT_THAT(std::string(worker.status().message()), HasSubstr("longer than 0.05 s to load"));

  options = PuppetOptions("never_ready");
  options.load_limit_ns = 1000 * kNsPerMs;  // it is to get that far on a busy machine, too
  const auto described = Worker::Start(std::move(options));
  ASSERT_TRUE(described.ok()) << described.status().ToString();
  EXPECT_THAT(std::string((*described)->Activate("m_1_0").message()),
              HasSubstr("longer than 1 s to load"));
}

TEST(WorkerLifeTest, MissingProgram_IsUnavailable) {
  auto options = PuppetOptions("echo");
  options.launch.arguments = {"/nowhere/python"};
  const auto worker = Worker::Start(std::move(options));
  EXPECT_THAT(std::string(worker.status().message()),
              AllOf(HasSubstr("cannot be started: No such file"), Not(HasSubstr("nowhere"))));
}

struct Trouble {
  const char* mode;
  const char* how;
};

class WorkerTrouble : public testing::TestWithParam<Trouble> {};

TEST_P(WorkerTrouble, InRun_FailsTheBatchAndIsStartedAgain) {
  auto options = PuppetOptions(GetParam().mode);
  options.execution_limit_ns = 500 * kNsPerMs;
  const auto worker = ReadyPuppet(std::move(options));
  SlabArena arena;
  const auto got = RunFloats(*worker, &arena, kValues);
  EXPECT_EQ(got.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(got.status().message()),
              AllOf(HasSubstr("model 'm' version 1: its worker "), HasSubstr(GetParam().how)));
  AwaitReady(*worker, true);
}

INSTANTIATE_TEST_SUITE_P(
    Ends, WorkerTrouble,
    testing::Values(Trouble{"exits", "exited with code 7 while it ran the batch"},
                    Trouble{"crashes", "was killed by SIGSEGV while it ran the batch"},
                    Trouble{"hangs", "a batch took longer than 0.5 s"},
                    Trouble{"closes", "it closed its connection"}),
    [](const auto& info) { return std::string(info.param.mode); });

TEST(WorkerLifeTest, SpentBudget_StaysDownAndSaysSoAtOnce) {
  auto options = PuppetOptions("exits");
  options.restarts.max_restarts = 1;
  const auto worker = ReadyPuppet(std::move(options));
  SlabArena arena;
  EXPECT_FALSE(RunFloats(*worker, &arena, kValues).ok());
  AwaitReady(*worker, true);
  EXPECT_FALSE(RunFloats(*worker, &arena, kValues).ok());
  AwaitReady(*worker, false);
  Status status;
  do {
    status = RunFloats(*worker, &arena, kValues).status();
    EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  } while (status.message().find("load the model again") == std::string_view::npos);
}

TEST(WorkerLifeTest, WhileItWaitsToBeRestarted_BatchesFailAtOnce) {
  auto options = PuppetOptions("exits");
  options.restarts.first_delay_ns = options.restarts.max_delay_ns = 3600 * 1000 * kNsPerMs;
  const auto worker = ReadyPuppet(std::move(options));
  SlabArena arena;
  EXPECT_FALSE(RunFloats(*worker, &arena, kValues).ok());
  AwaitReady(*worker, true);
  EXPECT_FALSE(RunFloats(*worker, &arena, kValues).ok());
  AwaitReady(*worker, false);
  EXPECT_FALSE(RunFloats(*worker, &arena, kValues).ok());
}  // and the destructor does not wait for the restart

TEST(WorkerLifeTest, Flood_NeitherBlocksNorIsLoggedWhole) {
  testing::internal::CaptureStderr();
  ReadyPuppet(PuppetOptions("floods")).reset();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_LT(log.size(), 4U << 20);
  EXPECT_THAT(log, HasSubstr("of its output were left out"));
}

TEST(WorkerLifeTest, Output_IsLoggedWithTheInstancesName) {
  testing::internal::CaptureStderr();
  ReadyPuppet(PuppetOptions("prints")).reset();
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, AllOf(HasSubstr("m_1_0"), HasSubstr("a warning"), HasSubstr("plain")));
}

}  // namespace
}  // namespace penstock
