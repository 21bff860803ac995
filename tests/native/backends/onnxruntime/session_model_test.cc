// Models in sessions: what they are, how batches run in them, what is refused and with which words.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "session_harness.h"
#include "testing/shm_object.h"

namespace penstock::ort {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

void ExpectRight(BackendModel& model, const RowBatch& batch) {
  auto instance = model.CreateInstance({});
  ASSERT_TRUE(instance.ok());
  std::vector<BatchOutput> outputs;
  const Status status = batch.Run(**instance, &outputs);
  ASSERT_TRUE(status.ok()) << status.ToString();
  EXPECT_TRUE(batch.IsRight(outputs)) << batch.rows << " rows";
}

std::string WhyRefused(FakeModels& fake, const std::map<std::string, std::string>& parameters) {
  const auto model = fake.Load(parameters);
  return model.ok() ? "" : model.status().ToString();
}

TEST(SessionModelTest, EveryNumberOfRows_IsAnsweredAsItIs) {
  FakeModels fake;
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  for (int rows = 1; rows <= 8; ++rows) ExpectRight(**model, RowBatch(rows * 7, rows, 4));
  EXPECT_THAT(fake.gpu->races(), IsEmpty());
  EXPECT_EQ(fake.gpu->pageable_copies(), 0);
}

TEST(SessionModelTest, TensorsOnTheGpuAndInRegisteredMemory_AreReadWhereTheyLie) {
  FakeModels fake;
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  auto instance = *(*model)->CreateInstance({});
  RowBatch batch(7, 3, 4);
  const auto x = RowBatch::Bytes(batch.x);
  const ShmObject object(std::string_view(reinterpret_cast<const char*>(x.data()), x.size()));
  ExportedMemory::Handle handle{};
  const std::string name = object.IpcHandle();
  std::copy(name.begin(), name.end(), handle.begin());
  const auto memory = std::make_shared<ExportedMemory>(handle, 0, x.size(), nullptr);
  std::vector<uint8_t> bias(batch.b.size() * sizeof(float));
  std::memcpy(bias.data(), batch.b.data(), bias.size());
  const auto pinned = fake.models->PinHostMemory(bias);
  ASSERT_NE(pinned, nullptr);
  ASSERT_TRUE(instance->Reaches(*memory));
  std::vector<BatchInput> inputs = batch.Inputs();
  inputs[0].tensor.data = {};
  inputs[1].tensor.data = bias;
  const std::vector<InputPart> parts = {{0, {}, {memory, 0, x.size()}}};
  std::vector<BatchOutput> outputs;
  const int on_device = fake.gpu->copies(gpu::CopyKind::kDeviceToDevice);
  ASSERT_TRUE(
      instance->ExecuteParts(inputs, std::vector<size_t>{0, 1}, {parts, {}}, &outputs).ok());
  EXPECT_TRUE(batch.IsRight(outputs));
  EXPECT_EQ(fake.gpu->copies(gpu::CopyKind::kDeviceToDevice) - on_device, 1);
  EXPECT_EQ(fake.gpu->pageable_copies(), 0);
  EXPECT_THAT(fake.gpu->races(), IsEmpty());
}

TEST(SessionModelTest, Signature_IsTheSessionsWithoutWhatHasADefault) {
  FakeModels fake({.more_inputs = {{"w", DataType::kFp32, {2}, /*is_optional=*/true}}});
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const ModelSignature& signature = (*model)->signature();
  ASSERT_EQ(signature.inputs.size(), 2U);
  EXPECT_EQ(signature.inputs[0].name, "x");
  EXPECT_EQ(signature.inputs[0].dims, (Shape{-1, 4}));
  ASSERT_EQ(signature.outputs.size(), 2U);
  EXPECT_EQ(signature.outputs[1].dtype, DataType::kUint32);
}

TEST(SessionModelTest, RunsOn_NamesDeviceAndProviders) {
  FakeModels fake;
  auto model = fake.Load({{"accelerators", "tensorrt"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_THAT((*model)->runs_on(),
              AllOf(HasSubstr("GPU 0 ("),
                    HasSubstr("), TensorrtExecutionProvider, CUDAExecutionProvider")));
}

TEST(SessionModelTest, Lanes_AreASessionEachOnAStreamOfItsOwn) {
  FakeModels fake;
  EXPECT_TRUE(fake.Load().ok());
  EXPECT_EQ(fake.log.opened.load(), 1);
  auto model = fake.Load({{"lanes", "3"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ(fake.log.opened.load(), 4);
  for (int i = 0; i < 6; ++i) ExpectRight(**model, RowBatch(i, 3, 4));
  EXPECT_EQ(fake.log.live.load(), 3);
}

// One lane's arena cannot take what the next needs, nor all lanes together what the next model does.
TEST(SessionModelTest, Arenas_OfAllLanesAreAShareOfWhatIsFree) {
  FakeModels fake;
  ASSERT_TRUE(fake.Load({{"lanes", "3"}}).ok());
  EXPECT_EQ(fake.told_lanes, 3U);
  ASSERT_TRUE(fake.Load().ok());
  EXPECT_EQ(fake.told_lanes, 1U);
  constexpr size_t kFree = size_t{80} << 30;
  EXPECT_EQ(ArenaBytes(kFree, 1), size_t{60} << 30);
  EXPECT_EQ(ArenaBytes(kFree, 3) * 3, ArenaBytes(kFree, 1));
}

TEST(SessionModelTest, OpenWidths_RunWithinTheirRangeAndNotBeyond) {
  FakeModels fake({.width = -1});
  auto model = fake.Load({{"shape:x", "1:4:8"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  for (const int width : {1, 5, 8, 2}) ExpectRight(**model, RowBatch(width, 2, width));
  auto instance = (*model)->CreateInstance({});
  std::vector<BatchOutput> outputs;
  const Status beyond = RowBatch(1, 2, 9).Run(**instance, &outputs);
  EXPECT_EQ(beyond.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(beyond.ToString(), AllOf(HasSubstr("model 'm' version 3"), HasSubstr("'x' [2,9]"),
                                       HasSubstr("[1,1] to [8,8]")));
}

TEST(SessionModelTest, FixedRows_RunAsTheyAre) {
  FakeModels fake({.rows = 2});
  auto model = fake.Load({{"max_batch_size", "0"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  ExpectRight(**model, RowBatch(5, 2, 4));
}

// An open first dimension is data: its range is the parameter's, as of any other dimension. So it is
// where the configuration lists shapes in full, which means max_batch_size 0.
TEST(SessionModelTest, OpenRowsOfAModelThatDoesNotBatch_RunAsTheyAre) {
  FakeModels fake;
  EXPECT_THAT(WhyRefused(fake, {{"max_batch_size", "0"}}),
              HasSubstr("expected parameter 'shape:x'"));
  for (const auto& [name, value] : {std::pair("max_batch_size", "0"), {"listed_rank:x", "2"}}) {
    auto model = fake.Load({{name, value}, {"shape:x", "2x4:4x4:6x4"}, {"shape:b", "2x1:4x1:6x1"}});
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    for (const int rows : {2, 5, 6}) ExpectRight(**model, RowBatch(rows, rows, 4));
    auto instance = (*model)->CreateInstance({});
    std::vector<BatchOutput> outputs;
    EXPECT_THAT(RowBatch(1, 1, 4).Run(**instance, &outputs).ToString(), HasSubstr("got 'x' [1,4]"));
  }
}

// Where nothing says how far it goes it goes as far as rows would.
TEST(SessionModelTest, OpenRowsThatAreListedInFull_GoAsFarAsABatchWould) {
  FakeModels fake;
  auto model = fake.Load({{"max_batch_size", "8"}, {"listed_rank:x", "2"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  for (const int rows : {1, 5, 8}) ExpectRight(**model, RowBatch(rows, rows, 4));
  auto instance = (*model)->CreateInstance({});
  std::vector<BatchOutput> outputs;
  EXPECT_THAT(RowBatch(1, 9, 4).Run(**instance, &outputs).ToString(), HasSubstr("[9,4]"));
  // One that is given says of all that it is data.
  EXPECT_THAT(WhyRefused(fake, {{"listed_rank:x", "2"}, {"shape:x", "2x4:4x4:6x4"}}),
              HasSubstr("expected parameter 'shape:b'"));
  FakeModels open({.width = -1});
  EXPECT_THAT(WhyRefused(open, {{"listed_rank:x", "2"}}),
              HasSubstr("GREATEST of [-1,-1], got none"));
}

// What the engine copies of an input it copies when it is bound: bound once, an input would be the
// first batch's for ever. What outputs are written to stays.
TEST(SessionModelTest, Inputs_AreBoundForEachRunAndOutputsForOtherShapesOnly) {
  FakeModels fake;
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  for (int i = 0; i < 2; ++i) ExpectRight(**model, RowBatch(1, 3, 4));  // both slots
  const int inputs = fake.log.input_binds.load();
  const int outputs = fake.log.output_binds.load();
  for (int i = 0; i < 4; ++i) ExpectRight(**model, RowBatch(i, 3, 4));
  EXPECT_EQ(fake.log.input_binds.load(), inputs + 8);
  EXPECT_EQ(fake.log.output_binds.load(), outputs);
  ExpectRight(**model, RowBatch(1, 4, 4));
  EXPECT_EQ(fake.log.output_binds.load(), outputs + 2);
}

// Copied in the stream's order, behind what copies the batch in.
TEST(SessionModelTest, InputThatTheEngineCopiesWhenItIsBound_IsEachBatchsOwn) {
  FakeModels fake({.host_input = HostInput::kUntold}, {.max_yields = 6});
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  for (int i = 0; i < 6; ++i) ExpectRight(**model, RowBatch(i, 3, 4));
  EXPECT_GT(fake.log.host_copies.load(), 0);
  EXPECT_THAT(fake.gpu->races(), IsEmpty());
}

TEST(SessionModelTest, InputThatTheHostReads_StaysInItsMemory) {
  FakeModels fake({.host_input = HostInput::kTold});
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const int copied = fake.gpu->copies(gpu::CopyKind::kHostToDevice);
  for (int i = 0; i < 6; ++i) ExpectRight(**model, RowBatch(i, 3, 4));
  EXPECT_EQ(fake.log.host_copies.load(), 0);
  EXPECT_EQ(fake.gpu->copies(gpu::CopyKind::kHostToDevice) - copied, 6);  // x alone
  EXPECT_THAT(fake.gpu->races(), IsEmpty());
}

// Its batches are in the host's memory as a whole: copied from there, or read where they are staged.
TEST(SessionModelTest, InputThatTheHostReads_IsTakenFromRegisteredMemoryAndNoGpus) {
  FakeModels fake({.host_input = HostInput::kTold});
  auto model = fake.Load();
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  auto instance = *(*model)->CreateInstance({});
  RowBatch batch(7, 3, 4);
  const auto x = RowBatch::Bytes(batch.x);
  const ShmObject object(std::string_view(reinterpret_cast<const char*>(x.data()), x.size()));
  ExportedMemory::Handle handle{};
  const std::string name = object.IpcHandle();
  std::copy(name.begin(), name.end(), handle.begin());
  EXPECT_FALSE(instance->Reaches(ExportedMemory(handle, 0, x.size(), nullptr)));
  std::vector<uint8_t> bias(batch.b.size() * sizeof(float));
  std::memcpy(bias.data(), batch.b.data(), bias.size());
  const auto pinned = fake.models->PinHostMemory(bias);
  ASSERT_NE(pinned, nullptr);
  std::vector<BatchInput> inputs = batch.Inputs();
  inputs[1].tensor.data = bias;
  std::vector<BatchOutput> outputs;
  ASSERT_TRUE(instance->ExecuteParts(inputs, std::vector<size_t>{0, 1}, {}, &outputs).ok());
  EXPECT_TRUE(batch.IsRight(outputs));
}

TEST(SessionModelTest, RunThatFails_FailsItsBatchAlone) {
  FakeModels fake;
  auto model = fake.Load();
  ASSERT_TRUE(model.ok());
  auto instance = (*model)->CreateInstance({});
  std::vector<BatchOutput> outputs;
  fake.log.FailRun(1);
  const Status failed = RowBatch(1, 2, 4).Run(**instance, &outputs);
  EXPECT_EQ(failed.code(), StatusCode::kInternal);
  EXPECT_THAT(failed.ToString(), HasSubstr("the session will not"));
  EXPECT_TRUE((*instance)->is_available());
  ExpectRight(**model, RowBatch(2, 2, 4));
}

TEST(SessionModelTest, LostDevice_EndsBatchesUnavailableAndRefusesLoads) {
  const QuietLog quiet;
  FakeModels fake;
  auto model = fake.Load();
  ASSERT_TRUE(model.ok());
  auto instance = (*model)->CreateInstance({});
  std::vector<BatchOutput> outputs;
  fake.gpu->FaultWork(1, gpu::Error::kIllegalAddress);
  EXPECT_EQ(RowBatch(1, 2, 4).Run(**instance, &outputs).code(), StatusCode::kUnavailable);
  EXPECT_FALSE((*instance)->is_available());
  const auto again = fake.Load();
  EXPECT_EQ(again.status().code(), StatusCode::kUnavailable);
}

TEST(SessionModelTest, WhatOpensNoSession_IsTheLoadsReasonAndLeavesNothing) {
  FakeModels fake;
  fake.log.FailOpen(1);
  EXPECT_THAT(WhyRefused(fake, {}),
              AllOf(HasSubstr("model 'm' version 3"), HasSubstr("the engine does not open it")));
  fake.log.FailOpen(2);  // that of the second lane
  EXPECT_THAT(WhyRefused(fake, {{"lanes", "2"}}), HasSubstr("the engine does not open it"));
  EXPECT_EQ(fake.log.live.load(), 0);
  EXPECT_TRUE(fake.Load().ok());
}

TEST(SessionModelTest, Unload_GivesEverythingBack) {
  FakeModels fake;
  ASSERT_TRUE(fake.Load().ok());  // opens the device, whose own stays
  const size_t before = fake.gpu->live_objects();
  ASSERT_TRUE(fake.Load({{"lanes", "2"}}).ok());
  EXPECT_EQ(fake.gpu->live_objects(), before);
  EXPECT_EQ(fake.log.live.load(), 0);
}

TEST(SessionModelTest, OpenInputWithoutARange_IsRefusedByName) {
  FakeModels fake({.width = -1});
  EXPECT_THAT(
      WhyRefused(fake, {}),
      AllOf(HasSubstr("model 'm' version 3: input 'x' of shape [-1,-1] is open"),
            HasSubstr("expected parameter 'shape:x', LEAST:LIKELY:GREATEST of a row's [-1]"),
            HasSubstr("got none")));
  EXPECT_THAT(WhyRefused(fake, {{"shape:x", "1x1:1x4:1x8"}}), HasSubstr("got [1,1]"));
}

TEST(SessionModelTest, RangeOfAnInputThatIsNotThere_IsRefused) {
  FakeModels fake;
  EXPECT_THAT(WhyRefused(fake, {{"shape:q", "1:2:4"}}),
              HasSubstr("parameter 'shape:q': the model has no such input"));
}

TEST(SessionModelTest, Text_IsRefused) {
  FakeModels fake({.more_inputs = {{"s", DataType::kBytes, {-1, 1}}}});
  EXPECT_THAT(WhyRefused(fake, {}), HasSubstr("input 's' is BYTES, which no GPU computes with"));
}

TEST(SessionModelTest, OutputWhoseShapeDependsOnValues_IsRefused) {
  FakeModels fake({.has_unknown_output = true});
  EXPECT_THAT(WhyRefused(fake, {}),
              AllOf(HasSubstr("output 'n' has shape [-1]"), HasSubstr("KIND_CPU")));
}

TEST(SessionModelTest, GpuThatIsNotThere_IsRefused) {
  FakeModels fake;
  EXPECT_THAT(WhyRefused(fake, {{"device", "3"}}),
              HasSubstr("model 'm' version 3: there is no GPU 3: this process sees 1"));
}

TEST(SessionModelTest, SeveralGpus_HaveASessionEach) {
  FakeModels fake({}, {.devices = 2});
  auto model = fake.Load({{"device", "0,1"}});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  EXPECT_EQ(fake.log.live.load(), 2);
  EXPECT_THAT((*model)->runs_on(), AllOf(HasSubstr("GPU 0 ("), HasSubstr("; GPU 1 (")));
  for (int i = 0; i < 4; ++i) ExpectRight(**model, RowBatch(i, 3, 4));
}

}  // namespace
}  // namespace penstock::ort
