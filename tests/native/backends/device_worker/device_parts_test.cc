// Batches in a device's worker whose tensors lie in clients' memory on its GPU.

#include "device_parts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s

#include <filesystem>
#include <thread>

namespace penstock {
namespace {

using testing::HasSubstr;

TEST_F(DevicePartsTest, Tensors_AreReadAndWrittenWhereTheyLie) {
  Load();
  ClientMemory client(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  for (int id = 1; id < 20; ++id) {
    const RowBatch batch(id, 1 + id % 8, kPlanWidth);
    const Status status = Run(batch, &client, id % (batch.rows + 1), id % 2 == 0);
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_TRUE(batch.IsRight(outputs_)) << id;
  }
}

// Rows 0 and 3 from the message, 1 from one client and 2 from another; what each reads back is its own.
TEST_F(DevicePartsTest, RequestsOfABatch_EachGetTheirOwn) {
  Load();
  const RowBatch batch(7, 4, kPlanWidth);
  ClientMemory first(kMemoryBytes);
  ClientMemory second(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*first.memory));
  ASSERT_TRUE(instance_->Reaches(*second.memory));
  std::vector<BatchInput> inputs = batch.Inputs();
  const auto x = inputs[0].tensor.data;
  inputs[0].tensor.data = {};
  const auto row = [&](size_t i) { return x.subspan(i * kPlanRowBytes, kPlanRowBytes); };
  first.Put(row(1), 128);
  second.Put(row(2), 64);
  const std::vector<InputPart> in = {{0, row(0), {}},  // of no slab: it is copied to one
                                     {0, {}, {first.memory, 128, kPlanRowBytes}},
                                     {0, {}, {second.memory, 64, kPlanRowBytes}},
                                     {0, row(3), {}}};
  const std::vector<OutputPart> out = {{0, 1, 1, true, {first.memory, 512, kPlanRowBytes}},
                                       {0, 2, 1, true, {second.memory, 256, kPlanRowBytes}},
                                       {1, 2, 1, false, {second.memory, 768, sizeof(uint32_t)}}};
  const std::vector<size_t> wanted = {0, 1};
  const Status status = instance_->ExecuteParts(inputs, wanted, {in, out}, &outputs_);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(batch.IsRight(outputs_));  // as a whole, on the host
  EXPECT_EQ(outputs_[1].data.size(), 0);
  EXPECT_EQ(outputs_[1].shape, Shape{4});
  const auto y_of = [&](size_t i) {
    std::vector<float> y(kPlanWidth);
    std::memcpy(y.data(), outputs_[0].data.data() + i * kPlanRowBytes, kPlanRowBytes);
    return y;
  };
  EXPECT_EQ(first.Floats(kPlanWidth, 512), y_of(1));
  EXPECT_EQ(second.Floats(kPlanWidth, 256), y_of(2));
  const std::string n = second.object.Read(sizeof(uint32_t), 768);
  EXPECT_EQ(n, std::string({2, 0, 0, 0}));
}

TEST_F(DevicePartsTest, Instance_IsAskedOnceForEachMemory) {
  Load();
  const RowBatch batch(3, 2, kPlanWidth);
  auto client = std::make_unique<ClientMemory>(kMemoryBytes);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(instance_->Reaches(*client->memory));
    ASSERT_TRUE(Run(batch, client.get()).ok());
  }
  EXPECT_EQ(Asked(scratch_), 1);
  const auto other = MustMake(*model_);
  EXPECT_TRUE(other->Reaches(*client->memory));
  EXPECT_TRUE(RunParts(*other, batch, client.get(), 0, false, &outputs_).ok());
  EXPECT_EQ(Asked(scratch_), 2);
}

TEST_F(DevicePartsTest, QuestionAboutAMemory_PinsNothing) {
  Load();
  RowBatch batch(1, 1, kPlanWidth);
  batch.x[0] = -9;
  ClientMemory client(kMemoryBytes);
  for (int i = 0; i < 2; ++i) {
    EXPECT_THAT(std::string(batch.Run(*instance_, &outputs_).message()), HasSubstr(" pinned=2 "));
    ASSERT_TRUE(instance_->Reaches(*client.memory));
  }
}

TEST_F(DevicePartsTest, MemoryThatGoes_IsClosedByThenAndAnotherIsAskedFor) {
  Load();
  const pid_t pid = PlanPid(*instance_);
  const RowBatch batch(3, 2, kPlanWidth);
  for (size_t i = 1; i < 20; ++i) {  // likely at the same address
    ClientMemory client(kMemoryBytes);
    ASSERT_TRUE(instance_->Reaches(*client.memory));
    ASSERT_TRUE(Run(batch, &client).ok());
    EXPECT_TRUE(batch.IsRight(outputs_));
    EXPECT_TRUE(client.IsOpenIn(pid));
    client.memory.reset();
    EXPECT_FALSE(client.IsOpenIn(pid));
    EXPECT_EQ(Asked(scratch_), i);
  }
  EXPECT_EQ(PlanPid(*instance_), pid);
}

TEST_F(DevicePartsTest, MemoryThatIsNotReached_IsNotAskedForAgain) {
  Load();
  ClientMemory client(kMemoryBytes);
  scratch_.Write("reach", "no");
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(instance_->Reaches(*client.memory));
  EXPECT_EQ(Asked(scratch_), 1);
  scratch_.Write("reach", "well");
  const ExportedMemory::Handle nobody{'/', 'x'};
  EXPECT_FALSE(instance_->Reaches(ExportedMemory(nobody, 0, 64, nullptr)));
  const RowBatch batch(3, 2, kPlanWidth);
  EXPECT_TRUE(batch.Run(*instance_, &outputs_).ok());
}

TEST_F(DevicePartsTest, MemoryOfAnotherDevice_IsNotAskedFor) {
  Load();
  EXPECT_FALSE(instance_->Reaches(*ClientMemory(kMemoryBytes, 1).memory));
  const auto unnumbered = std::make_shared<DeviceWorker>(WorkerOfTests());
  const auto model = MustLoadIn({unnumbered}, PlanLoad(scratch_, "u"));
  EXPECT_FALSE(MustMake(*model)->Reaches(*ClientMemory(kMemoryBytes).memory));
  EXPECT_EQ(Asked(scratch_), 0);
}

TEST_F(DevicePartsTest, ProcessThatIsStartedAnew_OpensAnew) {
  Load();
  ClientMemory client(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  KillAndAwaitAnother();
  const RowBatch batch(5, 3, kPlanWidth);  // gathered before the old one's end
  const Status status = Run(batch, &client, 1);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(batch.IsRight(outputs_));
  EXPECT_EQ(Asked(scratch_), 2);
  EXPECT_TRUE(instance_->Reaches(*client.memory));
  EXPECT_EQ(Asked(scratch_), 2);
  const pid_t pid = PlanPid(*instance_);
  EXPECT_TRUE(client.IsOpenIn(pid));
  client.memory.reset();
  EXPECT_FALSE(client.IsOpenIn(pid));
}

TEST_F(DevicePartsTest, ProcessThatIsStartedAnew_OpensInputsAndOutputsEachForItself) {
  Load();
  ClientMemory client(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  const RowBatch batch(5, 3, kPlanWidth);
  const std::vector<size_t> wanted = {0, 1};
  std::vector<BatchInput> inputs = batch.Inputs();
  const auto x = inputs[0].tensor.data;
  client.Put(x);
  KillAndAwaitAnother();
  const std::vector<OutputPart> out = {{0, 0, 3, true, {client.memory, 512, x.size()}}};
  EXPECT_TRUE(instance_->ExecuteParts(inputs, wanted, {{}, out}, &outputs_).ok());
  EXPECT_TRUE(batch.IsRight(outputs_));
  KillAndAwaitAnother();
  inputs[0].tensor.data = {};
  const std::vector<InputPart> in = {{0, {}, {client.memory, 0, x.size()}}};
  outputs_.clear();
  EXPECT_TRUE(instance_->ExecuteParts(inputs, wanted, {in, {}}, &outputs_).ok());
  EXPECT_TRUE(batch.IsRight(outputs_));
}

TEST_F(DevicePartsTest, ProcessThatIsStartedAnewAndDoesNotReach_FailsTheBatchAlone) {
  Load();
  ClientMemory client(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  KillAndAwaitAnother();
  scratch_.Write("reach", "no");
  const RowBatch batch(5, 3, kPlanWidth);
  const Status status = Run(batch, &client);
  EXPECT_EQ(status.ToString(),
            "UNAVAILABLE: model 'm' version 1: the worker of GPU 0 does not reach a client's "
            "memory any more");
  EXPECT_TRUE(batch.Run(*instance_, &outputs_).ok());
}

TEST_F(DevicePartsTest, BatchWithParts_IsNotLentToAnotherDevice) {
  worker_ = WorkerOfGpu(0, WorkerOfTests());
  const auto second = WorkerOfGpu(1, WorkerOfTests());
  model_ = MustLoadIn({worker_, second}, PlanLoad(scratch_));
  instance_ = MustMake(*model_);
  const auto other = MustMake(*model_);
  ClientMemory client(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  EXPECT_FALSE(other->Reaches(*client.memory));
  scratch_.Write("how", "reject");  // the first is not made again
  kill(PlanPid(*instance_), SIGKILL);
  AwaitThat([&] { return worker_->restarts() == 1 && !instance_->is_available(); });
  const RowBatch batch(5, 3, kPlanWidth);
  AwaitThat([&] { return batch.Run(*instance_, &outputs_).ok(); });  // by the other
  EXPECT_EQ(Run(batch, &client).code(), StatusCode::kUnavailable);
  EXPECT_FALSE(instance_->Reaches(*client.memory));
  EXPECT_TRUE(batch.Run(*instance_, &outputs_).ok());
  EXPECT_TRUE(batch.IsRight(outputs_));
}

TEST_F(DevicePartsTest, KillWithPartsInFlight_FailsThemAndTheMemoryCanGo) {
  Load();
  auto client = std::make_unique<ClientMemory>(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client->memory));
  const pid_t pid = PlanPid(*instance_);
  Status status;
  std::thread waits([&] {
    RowBatch batch(5, 3, kPlanWidth);
    batch.b[0] = -7;
    status = Run(batch, client.get());
  });
  AwaitThat([&] { return std::filesystem::exists(scratch_.File("go.waiting")); });
  kill(pid, SIGKILL);
  waits.join();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("was killed by SIGKILL while it ran"));
  client.reset();
  AwaitAvailable(*instance_, true);
  ClientMemory next(kMemoryBytes);
  const RowBatch batch(6, 2, kPlanWidth);
  ASSERT_TRUE(instance_->Reaches(*next.memory));
  ASSERT_TRUE(Run(batch, &next).ok());
  EXPECT_TRUE(batch.IsRight(outputs_));
}

TEST_F(DevicePartsTest, DeviceThatIsLostWithPartsInFlight_IsOpenedAnew) {
  Load();
  ClientMemory client(kMemoryBytes);
  ASSERT_TRUE(instance_->Reaches(*client.memory));
  RowBatch bad(5, 3, kPlanWidth);
  bad.b[0] = -4;
  EXPECT_EQ(Run(bad, &client).code(), StatusCode::kUnavailable);
  AwaitAvailable(*instance_, true);
  const RowBatch batch(6, 2, kPlanWidth);
  ASSERT_TRUE(Run(batch, &client).ok());
  EXPECT_TRUE(batch.IsRight(outputs_));
}

struct Trouble {
  const char* name;
  const char* how;
  double limit_s = 60;
};

class DeviceReachTroubles : public DevicePartsTest, public testing::WithParamInterface<Trouble> {};

TEST_P(DeviceReachTroubles, EndTheProcessAndTheMemoryIsNotReached) {
  Load(GetParam().limit_s);
  ClientMemory client(kMemoryBytes);
  scratch_.Write("reach", GetParam().how);
  EXPECT_FALSE(instance_->Reaches(*client.memory));
  scratch_.Write("reach", "well");
  AwaitThat([&] { return worker_->restarts() == 1 && instance_->is_available(); });
  const RowBatch batch(6, 2, kPlanWidth);
  EXPECT_TRUE(batch.Run(*instance_, &outputs_).ok());
  EXPECT_TRUE(instance_->Reaches(*client.memory));
  ASSERT_TRUE(Run(batch, &client).ok());
  EXPECT_TRUE(batch.IsRight(outputs_));
}

TEST_P(DeviceReachTroubles, ByOneMemoryTwice_IsTheEndOfItsQuestions) {
  Load(GetParam().limit_s);
  ClientMemory client(kMemoryBytes);
  scratch_.Write("reach", GetParam().how);
  for (uint64_t ends = 1; ends <= 2; ++ends) {
    EXPECT_FALSE(instance_->Reaches(*client.memory));
    AwaitThat([&] { return worker_->restarts() == ends && instance_->is_available(); });
  }
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(instance_->Reaches(*client.memory));
  EXPECT_EQ(Asked(scratch_), 2);
  scratch_.Write("reach", "well");
  EXPECT_FALSE(instance_->Reaches(*client.memory));
  EXPECT_EQ(worker_->restarts(), 2);
  ClientMemory other(kMemoryBytes);
  EXPECT_TRUE(instance_->Reaches(*other.memory));
  const RowBatch batch(6, 2, kPlanWidth);
  ASSERT_TRUE(Run(batch, &other).ok());
  EXPECT_TRUE(batch.IsRight(outputs_));
}

INSTANTIATE_TEST_SUITE_P(Troubles, DeviceReachTroubles,
                         testing::Values(Trouble{"hangs", "hang", 0.2}, Trouble{"crashes", "crash"},
                                         Trouble{"writes_nonsense", "nonsense"}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace penstock
