// Plans behind the backend's interface: what they answer, what they share, what they refuse.
#include "backends/tensorrt/plan_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "plan_harness.h"

namespace penstock::tensorrt {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::unique_ptr<BackendInstance> Instance(BackendModel& model) {
  auto instance = model.CreateInstance({.name = "m_0"});
  EXPECT_TRUE(instance.ok());
  return *std::move(instance);
}

// Of rows 1, 2 to 4, and 5 to 8.
FakePlanOptions ThreeOfRows() { return {.profiles = {{1, 1, 1}, {2, 4, 4}, {5, 8, 8}}}; }

void ExpectRight(BackendInstance& instance, const RowBatch& batch) {
  std::vector<BatchOutput> outputs;
  const Status status = batch.Run(instance, &outputs);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(batch.IsRight(outputs)) << batch.rows << " rows of " << batch.width;
}

TEST(PlanModelTest, EveryBatchSize_IsAnsweredInItsProfile) {
  FakeBackend fake(ThreeOfRows(), {.max_yields = 3});
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const auto instance = Instance(**model);
  for (int rows = 1; rows <= 8; ++rows) ExpectRight(*instance, RowBatch(rows * 7, rows, 16));
  EXPECT_THAT(fake.gpu->races(), IsEmpty());
  EXPECT_EQ(fake.gpu->pageable_copies(), 0);
}

TEST(PlanModelTest, BatchSizesWithGraphs_AreLaunched_AndOthersCounted) {
  FakeBackend fake(ThreeOfRows());
  auto model = fake.Load({{"graph_batch_sizes", "1,4"}, {"lanes", "1"}});
  ASSERT_TRUE(model.ok());
  gpu::LaneGroup& lanes = AsPlan(**model).replica(0).lanes();
  ASSERT_EQ(lanes.table().buckets().size(), 3U) << "1, 4 and the largest";
  for (const gpu::Bucket& bucket : lanes.table().buckets()) EXPECT_TRUE(bucket.has_graph);
  const auto instance = Instance(**model);
  for (const int rows : {1, 4, 8}) ExpectRight(*instance, RowBatch(rows, rows, 16));
  EXPECT_EQ(lanes.counts().uncaptured_runs, 0U);
  EXPECT_THAT(lanes.counts().graph_runs, testing::ElementsAre(1, 1, 1));
}

TEST(PlanModelTest, WithoutGraphs_EveryRunIsCounted) {
  FakeBackend fake(ThreeOfRows());
  auto model = fake.Load({{"cuda_graphs", "0"}});
  ASSERT_TRUE(model.ok());
  const auto instance = Instance(**model);
  for (int rows = 1; rows <= 8; ++rows) ExpectRight(*instance, RowBatch(rows, rows, 16));
  EXPECT_EQ(AsPlan(**model).replica(0).lanes().counts().uncaptured_runs, 8U);
}

TEST(PlanModelTest, DeviceUse_IsEachDevicesOwn) {
  FakeBackend fake({.profiles = {{1, 1, 1}, {2, 4, 8}}}, {.devices = 2});
  auto model = fake.Load(
      {{"device", "0,1"}, {"graph_batch_sizes", "1,8"}, {"lanes", "1"}, {"graph_memory_mb", "64"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ((*model)->runs_on(), "GPU 0 (Fake GPU); GPU 1 (Fake GPU)");
  const auto first = Instance(**model);
  for (const int rows : {1, 1, 8, 3}) ExpectRight(*first, RowBatch(rows, rows, 16));
  const std::vector<DeviceUse> use = (*model)->device_use();
  ASSERT_EQ(use.size(), 2U);
  EXPECT_EQ(use[1].id, 1);
  EXPECT_EQ(use[1].uuid, "GPU-00000000-0000-0000-0000-000000000001");
  EXPECT_EQ(use[0].kind + " " + use[0].name, "GPU Fake GPU");
  ASSERT_EQ(use[0].graphs.size(), 2U);
  EXPECT_EQ(use[0].graphs[0].rows, 1U);
  EXPECT_EQ(use[0].graphs[0].runs, 2U);
  EXPECT_EQ(use[0].graphs[1].rows, 8U);
  EXPECT_EQ(use[0].graphs[1].runs + use[0].uncaptured_runs, 2U) << "of 8 rows and of 3";
  EXPECT_EQ(use[0].graphs[1].padded_rows, use[0].graphs[1].runs == 2 ? 5U : 0U);
  EXPECT_EQ(use[1].graphs[0].runs + use[1].graphs[1].runs + use[1].uncaptured_runs, 0U);
  EXPECT_EQ(use[0].graph_budget_bytes, size_t{64} << 20);
  EXPECT_LE(use[0].graph_bytes, use[0].graph_budget_bytes);
  EXPECT_GT(use[0].memory_bytes, 0U) << "slots and contexts at least";
}

TEST(PlanModelTest, DeviceUseOfASlice_HasItsName) {
  FakeBackend fake({}, {.name = "Fake GPU MIG 1g.10gb"});
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ((*model)->device_use()[0].uuid, "MIG-00000000-0000-0000-0000-000000000000");
}

TEST(PlanModelTest, DeviceUse_TellsForHowLongItsDeviceWasBusy) {
  FakeBackend fake({}, {.max_yields = 20, .devices = 2});
  auto model = fake.Load({{"device", "0,1"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ((*model)->device_use()[0].busy_ns, 0U) << "what a load runs is not counted";
  const auto first = Instance(**model);
  const int64_t begin_ns = Clock::System().NowNs();
  // A run that is found to be over when its inputs are found to be there is too short to be counted.
  while ((*model)->device_use()[0].busy_ns == 0) ExpectRight(*first, RowBatch(1, 8, 16));
  const auto elapsed_ns = static_cast<uint64_t>(Clock::System().NowNs() - begin_ns);
  EXPECT_LE((*model)->device_use()[0].busy_ns, elapsed_ns);
  EXPECT_EQ((*model)->device_use()[1].busy_ns, 0U);
}

TEST(PlanModelTest, DeviceUseWithoutGraphs_CountsRunsAndPadding) {
  FakeBackend fake({.profiles = {{4, 4, 8}}});
  auto model = fake.Load({{"cuda_graphs", "0"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const auto instance = Instance(**model);
  for (const int rows : {8, 1, 3}) ExpectRight(*instance, RowBatch(rows, rows, 16));
  const DeviceUse use = (*model)->device_use().at(0);
  EXPECT_THAT(use.graphs, IsEmpty());
  EXPECT_EQ(use.graph_budget_bytes, 0U);
  EXPECT_EQ(use.uncaptured_runs, 3U);
  EXPECT_EQ(use.uncaptured_padded_rows, 4U) << "1 and 3 rows in the profile of 4";
}

TEST(PlanModelTest, LanesAndInstances_ShareOnePlan) {
  FakeBackend fake(ThreeOfRows());
  auto model = fake.Load({{"lanes", "4"}});
  ASSERT_TRUE(model.ok());
  EXPECT_EQ(fake.runtime->plans(), 1);
  EXPECT_EQ(AsPlan(**model).replica(0).lanes().slots(), 8U);
  const auto one = Instance(**model);
  const auto other = Instance(**model);
  EXPECT_EQ(fake.runtime->plans(), 1);
}

TEST(PlanModelTest, RowsThatNoProfileTakes_ArePaddedAndNotAnswered) {
  FakeBackend fake({.profiles = {{4, 4, 8}}});
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const auto instance = Instance(**model);
  for (const int rows : {8, 1, 3, 5}) ExpectRight(*instance, RowBatch(rows * 11, rows, 16));
}

TEST(PlanModelTest, OpenShapes_AreRunAsTheyCome) {
  FakeBackend fake({.width = -1, .profiles = {{1, 8, 8, 1, 32}, {1, 2, 2, 33, 128}}},
                   {.max_yields = 2});
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const auto instance = Instance(**model);
  for (const auto& [rows, width] : {std::pair(8, 32), {1, 1}, {2, 128}, {3, 7}, {1, 64}}) {
    ExpectRight(*instance, RowBatch(rows, rows, width));
  }
  EXPECT_EQ(AsPlan(**model).replica(0).lanes().counts().uncaptured_runs, 5U);
  std::vector<BatchOutput> outputs;
  const Status status = RowBatch(1, 3, 64).Run(*instance, &outputs);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("model 'm' version 3: no profile of the plan"), HasSubstr("[3,64]")));
  ExpectRight(*instance, RowBatch(9, 4, 20));
  EXPECT_THAT(fake.gpu->races(), IsEmpty());
}

class PlanModelWithoutRowsTest : public testing::TestWithParam<std::map<std::string, std::string>> {
};

// A configuration that lists shapes in full means max_batch_size 0, which is known once the plan is.
INSTANTIATE_TEST_SUITE_P(
    , PlanModelWithoutRowsTest,
    testing::Values(std::map<std::string, std::string>{{"max_batch_size", "0"}},
                    std::map<std::string, std::string>{
                        {"max_batch_size", "64"}, {"listed_rank:b", "1"}, {"listed_rank:n", "1"}},
                    std::map<std::string, std::string>{{"max_batch_size", "64"},
                                                       {"listed_rank:x", "2"}}));

// Nothing is padded, and what no profile takes is refused whole.
TEST_P(PlanModelWithoutRowsTest, FirstDimension_IsData) {
  FakeBackend fake({.profiles = {{4, 4, 8}}}, {.max_yields = 2});
  auto model = fake.Load(GetParam());
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const auto instance = Instance(**model);
  for (const int rows : {8, 4, 5}) ExpectRight(*instance, RowBatch(rows * 11, rows, 16));
  EXPECT_EQ(AsPlan(**model).replica(0).lanes().counts().uncaptured_runs, 3U);
  std::vector<BatchOutput> outputs;
  const Status status = RowBatch(1, 3, 16).Run(*instance, &outputs);
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("no profile of the plan takes these shapes, got 'x' [3,16]"),
                    HasSubstr("expected 'x' [4,16] to [8,16]")));
  EXPECT_THAT(fake.gpu->races(), IsEmpty());
}

TEST(PlanModelTest, ShapesThatAreListedWithoutRows_LeaveThem) {
  FakeBackend fake({.profiles = {{4, 4, 8}}});
  auto model =
      fake.Load({{"max_batch_size", "64"}, {"listed_rank:x", "1"}, {"listed_rank:n", "0"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ((*model)->signature().most_rows, 8U);
  ExpectRight(*Instance(**model), RowBatch(3, 3, 16));
}

TEST(PlanModelTest, FixedShapes_AreOneBatch) {
  FakeBackend fake({.rows = 4, .profiles = {{}}});
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ((*model)->signature().inputs[0].dims, (Shape{4, 16}));
  ExpectRight(*Instance(**model), RowBatch(5, 4, 16));
}

TEST(PlanModelTest, InputThatDoesNotFit_IsNamedWithWhatWasExpected) {
  FakeBackend fake;
  auto model = fake.Load();
  ASSERT_TRUE(model.ok());
  const auto instance = Instance(**model);
  const RowBatch good(1, 4, 16);
  const std::vector<size_t> wanted = {0};
  const auto refusal = [&](const std::function<void(std::vector<BatchInput>&)>& spoil) {
    auto inputs = good.Inputs();
    spoil(inputs);
    std::vector<BatchOutput> outputs;
    const Status status = instance->Execute(inputs, wanted, &outputs);
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_EQ(refusal([](auto& inputs) { inputs.pop_back(); }),
            "model 'm' version 3: input 'b' is missing");
  EXPECT_EQ(refusal([](auto& inputs) {
              inputs[0].tensor.shape = {4, 15};
            }),
            "model 'm' version 3: input 'x' has shape [4,15], expected [-1,16]");
  EXPECT_EQ(refusal([](auto& inputs) { inputs[0].tensor.data = inputs[0].tensor.data.first(8); }),
            "model 'm' version 3: input 'x' has 8 bytes, expected 256");
  EXPECT_EQ(refusal([](auto& inputs) {
              inputs[1].tensor.shape = {3, 1};
              inputs[1].tensor.data = inputs[1].tensor.data.first(12);
            }),
            "model 'm' version 3: input 'b' has 3 rows, expected 4");
  const RowBatch many(1, 9, 16);
  std::vector<BatchOutput> outputs;
  EXPECT_EQ(many.Run(*instance, &outputs).message(),
            "model 'm' version 3: input 'x' has 9 rows, expected 1 to 8");
  ExpectRight(*instance, good);
}

TEST(PlanModelTest, SeveralDevices_TakeInstancesInTurn) {
  FakeBackend fake({}, {.devices = 2});
  auto model = fake.Load({{"device", "1,GPU-00000000-0000-0000-0000-000000000000"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  PlanModel& plan = AsPlan(**model);
  ASSERT_EQ(plan.replicas(), 2U);
  EXPECT_EQ(plan.replica(0).ordinal(), 1);
  for (int i = 0; i < 4; ++i) ExpectRight(*Instance(**model), RowBatch(i, 3, 16));
  for (size_t i = 0; i < 2; ++i) {
    const gpu::RunCounts counts = plan.replica(i).lanes().counts();
    uint64_t runs = counts.uncaptured_runs;
    for (const uint64_t each : counts.graph_runs) runs += each;
    EXPECT_EQ(runs, 2U);
  }
}

TEST(PlanModelTest, SharedMemoryOfContexts_IsOneForEachLane) {
  constexpr size_t kContextBytes = size_t{1} << 20;
  FakeBackend fake({.profiles = {{1, 1, 1}, {2, 4, 4}, {5, 8, 8}}, .context_bytes = kContextBytes});
  auto model = fake.Load({{"lanes", "3"}});
  ASSERT_TRUE(model.ok());
  EXPECT_GE(fake.gpu->live_bytes(), 3 * kContextBytes);
  EXPECT_LT(fake.gpu->live_bytes(), 4 * kContextBytes);
}

TEST(PlanModelTest, Graphs_HaveAContextOfTheirOwnProfileAlone) {
  FakeBackend fake(ThreeOfRows());
  auto model = fake.Load({{"graph_batch_sizes", "1,4,8"}, {"lanes", "1"}});
  ASSERT_TRUE(model.ok());
  const auto slots = static_cast<int>(AsPlan(**model).replica(0).lanes().slots());
  EXPECT_EQ(fake.runtime->live_contexts(), slots * 3 + slots * 3) << "of profiles, of graphs";
}

TEST(PlanModelTest, Unload_GivesEverythingBack) {
  FakeBackend fake(ThreeOfRows());
  {
    auto model = fake.Load();
    ASSERT_TRUE(model.ok());
    ExpectRight(*Instance(**model), RowBatch(1, 2, 16));
    EXPECT_GT(fake.runtime->live_contexts(), 0);
  }
  EXPECT_EQ(fake.runtime->live_contexts(), 0);
  EXPECT_EQ(fake.gpu->live_bytes(), 0U);
}

TEST(PlanModelTest, PlanThatCannotBeServed_IsRefusedAtLoad) {
  const auto refusal = [](const FakePlanOptions& options, StatusCode code) {
    FakeBackend fake(options);
    const Status status = fake.Load().status();
    EXPECT_EQ(status.code(), code) << status.ToString();
    EXPECT_EQ(fake.gpu->live_bytes(), 0U);
    return std::string(status.message());
  };
  EXPECT_THAT(refusal({.has_unknown_output = true}, StatusCode::kUnimplemented),
              HasSubstr("output 'n' has shape [-1], which depends on what the inputs hold"));
  EXPECT_THAT(refusal({.profiles = {{0, 0, 0}}}, StatusCode::kInvalidArgument),
              HasSubstr("takes 1 to 0 rows"));
}

TEST(PlanModelTest, FileThatIsNoPlan_IsRefusedWithoutItsPath) {
  FakeBackend fake;
  fake.Write("something else");
  const Status status = fake.Load().status();
  EXPECT_EQ(status.ToString(),
            "INVALID_ARGUMENT: model 'm' version 3: FakeRT does not take the plan");
  fake.Write("");
  EXPECT_EQ(fake.Load().status().message(), "model 'm' version 3: its plan is empty");
  std::filesystem::remove(fake.directory / "model.plan");
  EXPECT_EQ(fake.Load().status().code(), StatusCode::kNotFound);
  EXPECT_THAT(std::string(fake.Load().status().message()), Not(HasSubstr(fake.directory.string())));
}

TEST(PlanModelTest, PlanWithCodeForTheHost_NeedsTheAdministratorsWord) {
  FakeBackend careful;
  careful.Write("fake-plan host-code");
  EXPECT_EQ(careful.Load().status().code(), StatusCode::kInvalidArgument);
  FakeBackend trusting({}, {}, /*allows_host_code=*/true);
  trusting.Write("fake-plan host-code");
  EXPECT_TRUE(trusting.Load().ok());
}

TEST(PlanModelTest, ParametersThatSayNothing_AreRefusedByName) {
  FakeBackend fake;
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"lanes", "5"},
                                                        {"lanes", "0"},
                                                        {"lanes", "two"},
                                                        {"cuda_graphs", "yes"},
                                                        {"graph_batch_sizes", "1,x"},
                                                        {"graph_memory_mb", "-1"},
                                                        {"device", "0,0"},
                                                        {"device", ""}}) {
    const Status status = fake.Load({{name, value}}).status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << name << "=" << value;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr("model 'm' version 3: "), HasSubstr("'" + name + "'")));
  }
  EXPECT_EQ(fake.Load({{"device", "7"}}).status().code(), StatusCode::kNotFound);
}

TEST(PlanModelTest, FailureOfTheEngine_FailsOneBatch) {
  FakeBackend fake;
  auto model = fake.Load({{"cuda_graphs", "0"}});
  ASSERT_TRUE(model.ok());
  const auto instance = Instance(**model);
  fake.runtime->FailEnqueue(1);
  std::vector<BatchOutput> outputs;
  EXPECT_EQ(RowBatch(1, 2, 16).Run(*instance, &outputs).ToString(), "INTERNAL: the plan will not");
  EXPECT_TRUE(instance->is_available());
  ExpectRight(*instance, RowBatch(2, 2, 16));
}

TEST(PlanModelTest, LostDevice_IsSaidByEveryInstanceAndEveryLoad) {
  const QuietLog quiet;
  FakeBackend fake;
  auto model = fake.Load();
  ASSERT_TRUE(model.ok());
  const auto instance = Instance(**model);
  fake.gpu->FaultWork(1, gpu::Error::kIllegalAddress);
  std::vector<BatchOutput> outputs;
  EXPECT_EQ(RowBatch(1, 2, 16).Run(*instance, &outputs).code(), StatusCode::kUnavailable);
  EXPECT_FALSE(instance->is_available());
  EXPECT_EQ(RowBatch(2, 2, 16).Run(*instance, &outputs).code(), StatusCode::kUnavailable);
  EXPECT_EQ(fake.Load().status().code(), StatusCode::kUnavailable);
}

TEST(PlanModelTest, EachBatch_TakesTheDeviceFirst) {
  FakeBackend fake;
  auto model = fake.Load();
  ASSERT_TRUE(model.ok());
  const auto instance = Instance(**model);
  ExpectRight(*instance, RowBatch(1, 2, 16));
  for (const bool is_elsewhere : {false, true}) {
    fake.gpu->FailCall("SetDevice", 1, gpu::Error::kInvalidDevice);
    const auto run = [&] {
      std::vector<BatchOutput> outputs;
      EXPECT_THAT(std::string(RowBatch(3, 2, 16).Run(*instance, &outputs).message()),
                  HasSubstr("take the device for this thread"));
      ExpectRight(*instance, RowBatch(4, 2, 16));
    };
    is_elsewhere ? std::thread(run).join() : run();
  }
}

}  // namespace
}  // namespace penstock::tensorrt
