// Batches whose tensors lie in clients' memory on GPUs, and in registered memory, behind the backend's
// interface: what is copied from and to where.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "plan_harness.h"
#include "testing/shm_object.h"

namespace penstock::tensorrt {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr int64_t kWidth = 4;
constexpr size_t kRowBytes = kWidth * sizeof(float);

// A client's memory, of float elements.
class PlanPartsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    model_ = *fake_.Load();
    instance_ = *model_->CreateInstance({});
  }
  // As a server has opened it, on that GPU.
  std::shared_ptr<const ExportedMemory> Opened(const ShmObject& object, int device = 0) {
    void* data = nullptr;
    size_t size_bytes = 0;
    EXPECT_EQ(fake_.gpu->SetDevice(device), gpu::Error::kSuccess);
    EXPECT_EQ(fake_.gpu->OpenIpcMemory(HandleOf(object), &data, &size_bytes), gpu::Error::kSuccess);
    EXPECT_EQ(fake_.gpu->SetDevice(0), gpu::Error::kSuccess);
    return {new ExportedMemory(HandleOf(object), device, size_bytes, data),
            [this, data](const ExportedMemory* memory) {
              delete memory;
              static_cast<void>(fake_.gpu->CloseIpcMemory(data));
            }};
  }
  // As a worker is told of it.
  static std::shared_ptr<const ExportedMemory> Named(const ShmObject& object, int device = 0) {
    return std::make_shared<ExportedMemory>(HandleOf(object), device, object.size(), nullptr);
  }
  static ExportedMemory::Handle HandleOf(const ShmObject& object) {
    ExportedMemory::Handle handle{};
    const std::string name = object.IpcHandle();
    std::copy(name.begin(), name.end(), handle.begin());
    return handle;
  }
  // x of the batch wholly in that memory.
  Status RunOnDevice(const RowBatch& batch, const std::shared_ptr<const ExportedMemory>& memory,
                     uint64_t offset = 0) {
    std::vector<BatchInput> inputs = batch.Inputs();
    const size_t size_bytes = inputs[0].tensor.data.size();
    inputs[0].tensor.data = {};
    const std::vector<InputPart> parts = {{0, {}, {memory, offset, size_bytes}}};
    outputs_.clear();
    return instance_->ExecuteParts(inputs, std::vector<size_t>{0, 1}, {parts, {}}, &outputs_);
  }
  int Copies(gpu::CopyKind kind) const { return fake_.gpu->copies(kind); }

  FakeBackend fake_{{.width = kWidth}, {.devices = 2}};
  std::unique_ptr<BackendModel> model_;
  std::unique_ptr<BackendInstance> instance_;
  std::vector<BatchOutput> outputs_;
};

std::string Text(std::span<const uint8_t> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_F(PlanPartsTest, InputOnTheDevice_IsReadWhereItLies) {
  const RowBatch batch(7, 3, kWidth);
  ShmObject object("0123456789abcdef" + Text(RowBatch::Bytes(batch.x)));
  const auto memory = Opened(object);
  EXPECT_TRUE(instance_->Reaches(*memory));
  const int on_device = Copies(gpu::CopyKind::kDeviceToDevice);
  ASSERT_TRUE(RunOnDevice(batch, memory, 16).ok());
  EXPECT_TRUE(batch.IsRight(outputs_));
  EXPECT_EQ(Copies(gpu::CopyKind::kDeviceToDevice) - on_device, 1);
  EXPECT_THAT(fake_.gpu->races(), IsEmpty());
}

TEST_F(PlanPartsTest, MemoryOfAnotherProcess_IsOpenedOnceAndClosedWithIt) {
  const RowBatch batch(7, 3, kWidth);
  const ShmObject object(Text(RowBatch::Bytes(batch.x)));
  const size_t before = fake_.gpu->live_objects();
  auto memory = Named(object);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(instance_->Reaches(*memory));
    ASSERT_TRUE(RunOnDevice(batch, memory).ok());
    EXPECT_TRUE(batch.IsRight(outputs_));
    EXPECT_EQ(fake_.gpu->live_objects(), before + 1);
  }
  memory.reset();
  EXPECT_EQ(fake_.gpu->live_objects(), before);
}

TEST_F(PlanPartsTest, MemoryThatDoesNotOpen_IsNotReachedNorAskedForAgain) {
  const QuietLog quiet;
  const ShmObject object(size_t{64});
  fake_.gpu->RefuseIpcOn(0);
  const auto memory = Named(object, 1);
  EXPECT_FALSE(instance_->Reaches(*memory));
  const int calls = fake_.gpu->calls();
  EXPECT_FALSE(instance_->Reaches(*memory));
  EXPECT_EQ(fake_.gpu->calls(), calls);
  const RowBatch batch(7, 3, kWidth);
  const Status refused = RunOnDevice(batch, memory);
  EXPECT_EQ(refused.code(), StatusCode::kInternal);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("out of the model's reach"));
  std::vector<BatchOutput> outputs;
  EXPECT_TRUE(batch.Run(*instance_, &outputs).ok());
}

TEST_F(PlanPartsTest, MemoryThatIsSmallerThanItSays_IsNotReachedAndStaysClosed) {
  const QuietLog quiet;
  const ShmObject object(size_t{64});
  const size_t before = fake_.gpu->live_objects();
  const ExportedMemory memory(HandleOf(object), 0, 65, nullptr);
  EXPECT_FALSE(instance_->Reaches(memory));
  EXPECT_EQ(fake_.gpu->live_objects(), before);
}

TEST_F(PlanPartsTest, MemoryOnAnotherGpu_IsCopiedFromThere) {
  const RowBatch batch(9, 8, kWidth);
  const ShmObject object(Text(RowBatch::Bytes(batch.x)));
  const auto memory = Opened(object, 1);
  EXPECT_TRUE(instance_->Reaches(*memory));
  ASSERT_TRUE(RunOnDevice(batch, memory).ok());
  EXPECT_TRUE(batch.IsRight(outputs_));
  EXPECT_EQ(fake_.gpu->peer_copies(), 1);
}

// Three requests: the first one's x on the host, the second's in memory that this process has
// opened, the third's in memory that another one has; y of the last two goes there.
TEST_F(PlanPartsTest, RequestsOfEachKind_AreOneBatch) {
  const RowBatch batch(5, 6, kWidth);
  const std::string x = Text(RowBatch::Bytes(batch.x));
  ShmObject first(x.substr(2 * kRowBytes, 2 * kRowBytes) + std::string(2 * kRowBytes, '.'));
  ShmObject second(x.substr(4 * kRowBytes) + std::string(2 * kRowBytes, '.'));
  const DevicePart parts[] = {{Opened(first), 0, 2 * kRowBytes}, {Named(second), 0, 2 * kRowBytes}};
  std::vector<BatchInput> inputs = batch.Inputs();
  const auto host = inputs[0].tensor.data.first(2 * kRowBytes);
  inputs[0].tensor.data = {};
  const std::vector<InputPart> in = {{0, host, {}}, {0, {}, parts[0]}, {0, {}, parts[1]}};
  std::vector<OutputPart> out;
  for (const uint32_t i : {0, 1}) {
    out.push_back({0, 2 + 2 * i, 2, true, {parts[i].memory, 2 * kRowBytes, 2 * kRowBytes}});
  }
  const std::vector<size_t> wanted = {0, 1};
  ASSERT_TRUE(instance_->ExecuteParts(inputs, wanted, {in, out}, &outputs_).ok());
  EXPECT_TRUE(batch.IsRight(outputs_));
  const std::string y = Text(std::as_const(outputs_[0].data).span());
  EXPECT_EQ(first.Read(2 * kRowBytes, 2 * kRowBytes), y.substr(2 * kRowBytes, 2 * kRowBytes));
  EXPECT_EQ(second.Read(2 * kRowBytes, 2 * kRowBytes), y.substr(4 * kRowBytes));
  EXPECT_THAT(fake_.gpu->races(), IsEmpty());
}

TEST_F(PlanPartsTest, OutputThatNobodyReadsOnTheHost_StaysOnTheDevice) {
  const RowBatch batch(5, 2, kWidth);
  ShmObject object(std::string(2 * kRowBytes, '.'));
  const auto memory = Opened(object);
  const std::vector<size_t> wanted = {0, 1};
  std::vector<OutputPart> out = {{0, 0, 2, false, {memory, 0, 2 * kRowBytes}}};
  const int to_host = Copies(gpu::CopyKind::kDeviceToHost);
  ASSERT_TRUE(instance_->ExecuteParts(batch.Inputs(), wanted, {{}, out}, &outputs_).ok());
  EXPECT_EQ(Copies(gpu::CopyKind::kDeviceToHost) - to_host, 1);  // n
  EXPECT_EQ(outputs_[0].data.size(), 0U);
  EXPECT_EQ(outputs_[0].shape, (Shape{2, kWidth}));
  std::vector<BatchOutput> expected;
  ASSERT_TRUE(batch.Run(*instance_, &expected).ok());
  EXPECT_EQ(object.Read(2 * kRowBytes), Text(std::as_const(expected[0].data).span()));

  object.Write(std::string(2 * kRowBytes, '.'));
  out[0].device.size_bytes -= 1;
  outputs_.clear();
  ASSERT_TRUE(instance_->ExecuteParts(batch.Inputs(), wanted, {{}, out}, &outputs_).ok());
  EXPECT_EQ(object.Read(2 * kRowBytes), std::string(2 * kRowBytes, '.')) << "it has no room";
}

TEST_F(PlanPartsTest, PartsThatAreNotTheWholeInput_AreRefused) {
  const RowBatch batch(5, 3, kWidth);
  const ShmObject object(size_t{1024});
  const auto memory = Opened(object);
  std::vector<BatchInput> inputs = batch.Inputs();
  inputs[0].tensor.data = {};
  const std::vector<InputPart> parts = {{0, {}, {memory, 0, 2 * kRowBytes}}};
  const Status refused =
      instance_->ExecuteParts(inputs, std::vector<size_t>{0, 1}, {parts, {}}, &outputs_);
  EXPECT_EQ(refused.ToString(),
            "INVALID_ARGUMENT: model 'm' version 3: input 'x' has 32 bytes, expected 48");
  EXPECT_THAT(RunOnDevice(batch, memory, 1000).ToString(), HasSubstr("out of the model's reach"));
  EXPECT_EQ(memory.use_count(), 2) << "nothing holds it beside this and the part";
}

TEST_F(PlanPartsTest, RegisteredMemory_IsNotStaged) {
  RowBatch batch(5, 3, kWidth);
  const std::span<uint8_t> bytes(reinterpret_cast<uint8_t*>(batch.x.data()), 3 * kRowBytes);
  auto handle = fake_.backend->PinHostMemory(bytes);
  ASSERT_NE(handle, nullptr);
  // Its copy waits until the memory has changed: what was staged before would not.
  fake_.gpu->DelayNextCopy([&] {
    for (float& each : batch.x) each += 1;
  });
  std::vector<BatchOutput> outputs;
  ASSERT_TRUE(batch.Run(*instance_, &outputs).ok());
  EXPECT_TRUE(batch.IsRight(outputs));
  handle.reset();
  ASSERT_TRUE(batch.Run(*instance_, &outputs).ok());
  EXPECT_TRUE(batch.IsRight(outputs));
  EXPECT_EQ(fake_.gpu->pageable_copies(), 0);
}

TEST_F(PlanPartsTest, MemoryThatCannotBeRegistered_IsStagedAndTheLogSaysSoOnce) {
  RowBatch batch(5, 3, kWidth);
  const std::span<uint8_t> bytes(reinterpret_cast<uint8_t*>(batch.x.data()), 3 * kRowBytes);
  testing::internal::CaptureStderr();
  for (int i = 0; i < 2; ++i) {
    fake_.gpu->FailCall("RegisterHost", 1, gpu::Error::kMemoryAllocation);
    EXPECT_EQ(fake_.backend->PinHostMemory(bytes), nullptr);
  }
  EXPECT_EQ(fake_.backend->PinHostMemory({}), nullptr);
  const std::string log = testing::internal::GetCapturedStderr();
  const size_t said = log.find("48 bytes cannot be registered");
  EXPECT_NE(said, log.npos) << log;
  EXPECT_EQ(log.find("cannot be registered", said + 10), log.npos) << log;
  std::vector<BatchOutput> outputs;
  ASSERT_TRUE(batch.Run(*instance_, &outputs).ok());
  EXPECT_TRUE(batch.IsRight(outputs));
  EXPECT_EQ(fake_.gpu->pageable_copies(), 0);
}

TEST_F(PlanPartsTest, LostDevice_ReachesNothingAndRegistersNothing) {
  const QuietLog quiet;
  const ShmObject object(size_t{1024});
  const auto memory = Opened(object);
  std::vector<uint8_t> bytes(64);
  auto handle = fake_.backend->PinHostMemory(bytes);
  ASSERT_NE(handle, nullptr);
  AsPlan(*model_).replica(0).device().health().Fault("it hangs");
  EXPECT_FALSE(instance_->Reaches(*memory));
  EXPECT_EQ(fake_.backend->PinHostMemory(bytes), nullptr);
  const int calls = fake_.gpu->calls();
  handle.reset();
  EXPECT_EQ(fake_.gpu->calls(), calls) << "a lost device is not asked";
  EXPECT_EQ(RunOnDevice(RowBatch(1, 1, kWidth), memory).code(), StatusCode::kUnavailable);
}

TEST(PlanPinTest, BeforeAModelIsLoaded_NothingIsRegistered) {
  FakeBackend fake;
  std::vector<uint8_t> bytes(64);
  const int calls = fake.gpu->calls();
  EXPECT_EQ(fake.backend->PinHostMemory(bytes), nullptr);
  EXPECT_EQ(fake.gpu->calls(), calls);
}

}  // namespace
}  // namespace penstock::tensorrt
