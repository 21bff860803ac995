// Outputs of plans in memory that the caller has for them: who writes there, and until when.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "plan_harness.h"
#include "testing/shm_object.h"

namespace penstock::tensorrt {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kPlaceWidth = 4;
constexpr size_t kPlaceRowBytes = kPlaceWidth * sizeof(float);
constexpr uint8_t kUntouched = 0xA5;

class PlanOutputsTest : public ::testing::Test {
 protected:
  void Load(const FakePlanOptions& plan = {.width = kPlaceWidth}) {
    fake_.emplace(plan, FakeGpuOptions{.max_yields = 20});
    model_ = *fake_->Load({{"lanes", "1"}, {"graph_batch_sizes", "4"}});
    instance_ = *model_->CreateInstance({"m_0", memory_.AsRoom()});
  }
  void Pin() {
    pinned_ = fake_->backend->PinHostMemory(memory_.bytes);
    ASSERT_NE(pinned_, nullptr);
  }
  std::vector<BatchOutput> Run(const RowBatch& batch) {
    std::vector<BatchOutput> outputs;
    const Status status = batch.Run(*instance_, &outputs);
    EXPECT_TRUE(status.ok()) << status.ToString();
    EXPECT_TRUE(batch.IsRight(outputs)) << batch.rows << " rows";
    return outputs;
  }
  // Of all slots, the pinned memory of the outputs.
  std::vector<std::span<uint8_t>> Staged() {
    PlanReplica& replica = AsPlan(*model_).replica(0);
    std::vector<gpu::SlotLease> leases;
    std::vector<std::span<uint8_t>> staged;
    while (gpu::SlotLease lease = replica.lanes().TryAcquire()) {
      for (size_t i = 0; i < replica.engine().outputs().size(); ++i) {
        staged.emplace_back(const_cast<uint8_t*>(lease.output(i)),
                            replica.engine().outputs()[i].row_bytes * replica.engine().max_rows());
      }
      leases.push_back(std::move(lease));
    }
    EXPECT_EQ(leases.size(), 2U);
    return staged;
  }
  int ToHost() const { return fake_->gpu->copies(gpu::CopyKind::kDeviceToHost); }

  OutputMemory memory_;
  std::optional<FakeBackend> fake_;
  std::shared_ptr<void> pinned_;
  std::unique_ptr<BackendModel> model_;
  std::unique_ptr<BackendInstance> instance_;
};

// With a graph and without: what the slot's own memory held it holds still, so that nobody can have
// copied outputs from there.
TEST_F(PlanOutputsTest, RegisteredRoom_IsWrittenByTheDeviceAndTheSlotIsNot) {
  Load();
  Pin();
  for (const auto staged : Staged()) std::fill(staged.begin(), staged.end(), kUntouched);
  const gpu::LaneGroup& lanes = AsPlan(*model_).replica(0).lanes();
  for (const int64_t rows : {4, 3, 8, 1}) {
    const int before = ToHost();
    const auto outputs = Run(RowBatch(static_cast<int>(rows), rows, kPlaceWidth));
    EXPECT_EQ(ToHost() - before, 2);
    for (const BatchOutput& output : outputs) EXPECT_TRUE(memory_.Holds(output.data));
    EXPECT_THAT(memory_.asked, ElementsAre(rows * kPlaceRowBytes, rows * sizeof(uint32_t)));
  }
  EXPECT_GT(lanes.counts().graph_runs[0], 0U);
  for (const auto staged : Staged()) {
    EXPECT_TRUE(
        std::all_of(staged.begin(), staged.end(), [](uint8_t byte) { return byte == kUntouched; }));
  }
  EXPECT_EQ(fake_->gpu->pageable_copies(), 0);
  EXPECT_THAT(fake_->gpu->races(), IsEmpty());
}

TEST_F(PlanOutputsTest, RoomOfAnyKind_HasTheSameOutputs) {
  Load();
  const RowBatch batch(7, 5, kPlaceWidth);
  memory_.is_full = true;
  const auto without = Run(batch);
  for (const BatchOutput& output : without) EXPECT_FALSE(memory_.Holds(output.data));
  memory_.is_full = false;
  for (const bool is_registered : {false, true}) {
    if (is_registered) Pin();
    const auto within = Run(batch);
    for (size_t i = 0; i < within.size(); ++i) {
      EXPECT_TRUE(memory_.Holds(within[i].data));
      EXPECT_TRUE(std::ranges::equal(within[i].data.span(), without[i].data.span()));
    }
  }
  EXPECT_EQ(fake_->gpu->pageable_copies(), 0);
}

TEST_F(PlanOutputsTest, OpenShapes_AreCopiedToTheRoomOnceTheyAreKnown) {
  Load({.width = -1, .profiles = {{1, 2, 8, 1, 8}}});
  Pin();
  for (const int64_t width : {3, 8, 1}) {
    const auto outputs = Run(RowBatch(5, 6, width));
    for (const BatchOutput& output : outputs) EXPECT_TRUE(memory_.Holds(output.data));
    EXPECT_THAT(memory_.asked, ElementsAre(6 * width * sizeof(float), 6 * sizeof(uint32_t)));
  }
}

TEST_F(PlanOutputsTest, OutputThatNobodyReadsOnTheHost_TakesNoRoom) {
  Load();
  Pin();
  const RowBatch batch(5, 2, kPlaceWidth);
  ShmObject object(std::string(2 * kPlaceRowBytes, '.'));
  ExportedMemory::Handle handle{};
  const std::string name = object.IpcHandle();
  std::copy(name.begin(), name.end(), handle.begin());
  const auto client = std::make_shared<ExportedMemory>(handle, 0, object.size(), nullptr);
  const std::vector<size_t> wanted = {0, 1};
  for (const bool is_read : {false, true}) {
    const std::vector<OutputPart> out = {{0, 0, 2, is_read, {client, 0, 2 * kPlaceRowBytes}}};
    std::vector<BatchOutput> outputs;
    ASSERT_TRUE(instance_->ExecuteParts(batch.Inputs(), wanted, {{}, out}, &outputs).ok());
    EXPECT_THAT(memory_.asked, ElementsAre(is_read ? 2 * kPlaceRowBytes : 0, 2 * sizeof(uint32_t)));
    EXPECT_EQ(outputs[0].data.size(), memory_.asked[0]);
    EXPECT_TRUE(memory_.Holds(outputs[1].data));
    const auto expected = Run(batch);
    const auto y = expected[0].data.span();
    EXPECT_EQ(object.Read(2 * kPlaceRowBytes),
              std::string(reinterpret_cast<const char*>(y.data()), y.size()));
  }
}

// The last event, behind the copies out, cannot be recorded: the batch fails, and waits for them.
TEST_F(PlanOutputsTest, FailedBatch_ReturnsWhenTheDeviceIsThroughWithTheRoom) {
  const QuietLog quiet;
  Load();
  Pin();
  const RowBatch batch(5, 3, kPlaceWidth);
  for (int i = 0; i < 20; ++i) {
    fake_->gpu->FailCall("RecordEvent", 3, gpu::Error::kInvalidValue);
    std::vector<BatchOutput> outputs;
    EXPECT_EQ(batch.Run(*instance_, &outputs).code(), StatusCode::kInternal);
    EXPECT_THAT(outputs, IsEmpty());
    std::fill(memory_.bytes.begin(), memory_.bytes.end(), kUntouched);
  }
  instance_.reset();
  model_.reset();  // no stream has anything left
  EXPECT_EQ(std::count(memory_.bytes.begin(), memory_.bytes.end(), kUntouched),
            static_cast<ptrdiff_t>(OutputMemory::kBytes));
}

}  // namespace
}  // namespace penstock::tensorrt
