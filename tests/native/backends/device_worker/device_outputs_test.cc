// Outputs in the slab that a device's worker shares with the server: where a device finds them room, and
// that nobody copies what it wrote there.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "backends/device_worker/slab_outputs.h"
#include "device_parts.h"
#include "testing/quiet_log.h"
#include "worker/batch_channel.h"
#include "worker/packet_socket.h"
#include "worker/slab.h"

namespace penstock {
namespace {

using testing::HasSubstr;

Buffer Borrow(std::span<uint8_t> bytes) {
  return {bytes.data(), bytes.size(), bytes.size(), nullptr, nullptr};
}

BatchOutput Output(size_t index, std::span<uint8_t> bytes, Shape shape = {}) {
  if (shape.empty()) shape = {static_cast<int64_t>(bytes.size())};
  return {index, DataType::kUint8, shape, Borrow(bytes)};
}

void Fill(std::span<uint8_t> bytes, uint8_t first) { std::iota(bytes.begin(), bytes.end(), first); }

bool IsFilled(std::span<const uint8_t> bytes, uint8_t first) {
  std::vector<uint8_t> expected(bytes.size());
  Fill(expected, first);
  return std::ranges::equal(bytes, expected);
}

// A server's end and a worker's, which runs each batch as a test says.
class SlabOutputsTest : public testing::Test {
 protected:
  using RunBatch = std::function<void(ChildChannel& channel, uint64_t batch)>;

  void SetUp() override { ASSERT_TRUE(server_.Begin().ok()); }

  Result<std::vector<WorkerAnswer>> Run(const RunBatch& run) {
    ++batches_;
    const std::vector<size_t> wanted = {0, 1};
    EXPECT_TRUE(server_.SendRun({{}, wanted, {}}, batches_, &arena_, /*streams=*/false).ok());
    std::thread worker([&] {
      const auto packet = worker_.Receive();
      ASSERT_TRUE(packet.has_value());
      worker_.UseOutputs(packet->value);
      run(worker_, packet->batch);
    });
    auto answers = server_.AwaitDone(batches_, 1, 0);
    worker.join();
    return answers;
  }

  std::pair<OwnedFd, OwnedFd> ends_ = *PacketSocket::MakeEnds();
  PacketSocket socket_{std::move(ends_.first)};
  BatchChannel server_{socket_};
  ChildChannel worker_{std::move(ends_.second)};
  SlabArena arena_;
  uint64_t batches_ = 0;
};

// What a device has written is not even readable for the worker while it sends it; slabs grow before.
TEST_F(SlabOutputsTest, OutputsInTheirPlaces_AreSentUntouched) {
  std::vector<WorkerAnswer> held;  // large ones lie in their slabs for as long
  for (const size_t pages : {1, 3, 100, 40, 2, 200, 1}) {
    const size_t sizes[] = {pages * Slab::kPageBytes, 2 * Slab::kPageBytes};
    auto answers = Run([&](ChildChannel& channel, uint64_t batch) {
      const auto places = AllocateOutputs(channel, sizes);
      ASSERT_EQ(places.size(), 2U);
      std::vector<BatchOutput> outputs;
      for (size_t i = 0; i < places.size(); ++i) {
        ASSERT_EQ(places[i].size(), sizes[i]);
        Fill(places[i], static_cast<uint8_t>(pages + i));
        ASSERT_EQ(mprotect(places[i].data(), sizes[i], PROT_NONE), 0);
        outputs.push_back(Output(i, places[i]));
      }
      const auto is_sent = SendOutputs(channel, batch, outputs);
      EXPECT_TRUE(is_sent.ok() && *is_sent);
      for (size_t i = 0; i < places.size(); ++i) {
        ASSERT_EQ(mprotect(places[i].data(), sizes[i], PROT_READ | PROT_WRITE), 0);
      }
    });
    ASSERT_TRUE(answers.ok()) << answers.status().ToString();
    held.push_back(std::move(answers->front()));
    for (const WorkerAnswer& answer : held) {
      const auto first = std::as_const(answer.outputs[0].data).span();
      EXPECT_TRUE(IsFilled(first, static_cast<uint8_t>(first.size() / Slab::kPageBytes)));
      EXPECT_TRUE(IsFilled(std::as_const(answer.outputs[1].data).span(),
                           static_cast<uint8_t>(first.size() / Slab::kPageBytes + 1)));
    }
  }
}

// The first slab holds them with what is said of them, whatever their rank.
TEST_F(SlabOutputsTest, RoomForOutputs_IsRoomForWhatIsSaidOfThemToo) {
  Shape shape;
  while (shape.rank() < kMaxRank - 1) shape.Append(1);
  const size_t size = BatchChannel::kFirstOutputSlabBytes - 4 * SlabArena::kAlignment;
  shape.Append(static_cast<int64_t>(size));
  const auto answers = Run([&](ChildChannel& channel, uint64_t batch) {
    const auto places = AllocateOutputs(channel, std::vector<size_t>{size, 0});
    ASSERT_EQ(places.size(), 2U);
    const uint8_t* slab = channel.Reserve(1).data();
    EXPECT_EQ(places[0].data(), slab) << "it did not grow";
    Fill(places[0], 9);
    std::vector<BatchOutput> outputs;
    outputs.push_back(Output(0, places[0], shape));
    outputs.push_back(Output(1, places[1], {0}));
    EXPECT_TRUE(*SendOutputs(channel, batch, outputs));
    EXPECT_EQ(channel.Reserve(1).data(), slab);
  });
  ASSERT_TRUE(answers.ok()) << answers.status().ToString();
  EXPECT_TRUE(IsFilled(answers->front().outputs[0].data.span(), 9));
}

TEST_F(SlabOutputsTest, OutputsElsewhere_AreCopiedToTheirPlaces) {
  for (const bool first_is_there : {false, true}) {
    std::vector<uint8_t> own(70);
    Fill(own, 5);
    const auto answers = Run([&](ChildChannel& channel, uint64_t batch) {
      const auto places = AllocateOutputs(channel, std::vector<size_t>{70, 70});
      Fill(places[0], 1);
      std::vector<BatchOutput> outputs;
      outputs.push_back(Output(0, first_is_there ? places[0] : std::span(own)));
      outputs.push_back(Output(1, own));
      EXPECT_TRUE(*SendOutputs(channel, batch, outputs));
    });
    ASSERT_TRUE(answers.ok()) << answers.status().ToString();
    const auto& outputs = answers->front().outputs;
    EXPECT_TRUE(IsFilled(outputs[0].data.span(), first_is_there ? 1 : 5));
    EXPECT_TRUE(IsFilled(outputs[1].data.span(), 5));
  }
}

TEST_F(SlabOutputsTest, OutputInAnothersPlace_IsNotSent) {
  const auto answers = Run([&](ChildChannel& channel, uint64_t batch) {
    const auto places = AllocateOutputs(channel, std::vector<size_t>{64, 64});
    std::vector<BatchOutput> outputs;
    outputs.push_back(Output(0, places[1]));
    const Status refused = SendOutputs(channel, batch, outputs).status();
    EXPECT_EQ(refused.ToString(), "INTERNAL: output 0 of a batch lies in another's place");
    outputs.clear();
    EXPECT_TRUE(*SendOutputs(channel, batch, outputs));
  });
  EXPECT_TRUE(answers.ok()) << answers.status().ToString();
}

// The server keeps none that is larger, so it would be pinned for one batch.
TEST_F(SlabOutputsTest, SlabsThatAreNotKept_AreNotPinned) {
  constexpr size_t kGreatest = BatchChannel::kGreatestKeptBytes;
  std::vector<size_t> pinned;
  worker_.SetPin([&](std::span<uint8_t> memory) {
    pinned.push_back(memory.size());
    return std::shared_ptr<void>();
  });
  const auto answers = Run([&](ChildChannel& channel, uint64_t batch) {
    pinned.clear();
    for (const size_t size : {kGreatest / 2, kGreatest, 2 * kGreatest}) {
      EXPECT_EQ(AllocateOutputs(channel, std::vector<size_t>{size - 4096}).size(), 1U);
      EXPECT_EQ(channel.Reserve(1).size(), size);
    }
    EXPECT_TRUE(*SendOutputs(channel, batch, {}));
  });
  ASSERT_TRUE(answers.ok()) << answers.status().ToString();
  EXPECT_EQ(pinned, (std::vector<size_t>{kGreatest / 2, kGreatest}));
}

TEST_F(SlabOutputsTest, WithoutRoom_NothingIsAllocated) {
  const auto answers = Run([&](ChildChannel& channel, uint64_t batch) {
    EXPECT_TRUE(AllocateOutputs(channel, std::vector<size_t>{0, 0}).empty());
    EXPECT_TRUE(AllocateOutputs(channel, std::vector<size_t>{kMaxWorkerOutputBytes, 0}).empty());
    EXPECT_TRUE(*SendOutputs(channel, batch, {}));
  });
  EXPECT_TRUE(answers.ok()) << answers.status().ToString();
  socket_.Close();
  EXPECT_TRUE(AllocateOutputs(worker_, std::vector<size_t>{1 << 20}).empty());
}

// Of plans in a worker, of 64 KiB a row.
constexpr int64_t kLargeWidth = 16 << 10;

LoadOptions LargePlan(const ScratchDirectory& scratch) { return PlanLoad(scratch, "large"); }

std::string AboutPlan(BackendInstance& instance) {
  RowBatch batch(1, 1, kLargeWidth);
  batch.x[0] = -9;
  std::vector<BatchOutput> outputs;
  return std::string(batch.Run(instance, &outputs).message());
}

// A batch's answer, as the engine has it until its clients have taken it.
struct Answer {
  RowBatch batch;
  std::vector<BatchOutput> outputs;
};

TEST(DeviceOutputsTest, OutputsOfEachSize_AreWrittenToTheSlabAndStayAsTheyAre) {
  const ScratchDirectory scratch;
  DeviceWorkers workers(DeviceDirectories());
  const auto model =
      workers.Load("device_fixture", {{"width", StrCat(kLargeWidth)}}, LargePlan(scratch));
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  const auto instance = MustMake(**model);
  std::deque<Answer> answers;
  for (int i = 0; i < 24; ++i) {
    Answer& answer = answers.emplace_back(Answer{RowBatch(i, 1 + (5 * i) % 8, kLargeWidth), {}});
    ASSERT_TRUE(answer.batch.Run(*instance, &answer.outputs).ok());
    if (i % 3 == 2) answers.pop_front();
    for (const Answer& each : answers) EXPECT_TRUE(each.batch.IsRight(each.outputs));
  }
  EXPECT_THAT(AboutPlan(*instance), HasSubstr("in_place=48 elsewhere=0 "));
}

struct Outcomes {
  std::atomic<int> right{0}, failed{0}, unavailable{0}, wrong{0};
};

void RunLargeBatches(BackendInstance& instance, uint32_t seed, Outcomes* outcomes) {
  constexpr float kTroubles[] = {-1, -2, -4, -5, -6};  // exit, crash, lose the device, throw, fail
  std::mt19937 random(seed);
  std::deque<Answer> answers;
  for (int i = 0; i < 8; ++i) {
    const auto id = static_cast<int>(random() % 1000);
    Answer& answer = answers.emplace_back(Answer{RowBatch(id, 1 + random() % 8, kLargeWidth), {}});
    const bool has_trouble = random() % 24 == 0;
    if (has_trouble) answer.batch.x[0] = kTroubles[random() % std::size(kTroubles)];
    const Status status = answer.batch.Run(instance, &answer.outputs);
    if (status.code() == StatusCode::kUnavailable) {
      ++outcomes->unavailable;
    } else {
      ++(status.ok() ? outcomes->right : outcomes->failed);
      if (status.ok() == has_trouble) ++outcomes->wrong;
    }
    if (!status.ok()) answers.pop_back();
    // Also those of a process that has ended since.
    for (const Answer& each : answers) {
      if (!each.batch.IsRight(each.outputs)) ++outcomes->wrong;
    }
    if (answers.size() > random() % 5) answers.pop_front();
  }
}

TEST(DeviceOutputsTest, RandomSchedules_SpoilAndStageNoOutput) {
  const QuietLog quiet;
  const ScratchDirectory scratch;
  DeviceWorkerOptions options = WorkerOfTests();
  options.restarts = {.max_restarts = 1 << 20, .first_delay_ns = 0, .max_delay_ns = 0};
  const auto worker = std::make_shared<DeviceWorker>(std::move(options));
  auto model = DeviceModel::Load(
      "model 'large' version 1", {worker},
      EncodeDeviceLoad({"device_fixture", {{"width", StrCat(kLargeWidth)}}, LargePlan(scratch)}),
      {});
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  std::vector<std::unique_ptr<BackendInstance>> instances;
  for (int i = 0; i < 3; ++i) instances.push_back(MustMake(**model));
  Outcomes outcomes;
  constexpr int kSchedules = 20;
  for (int seed = 0; seed < kSchedules; ++seed) {
    std::vector<std::thread> threads;
    for (uint32_t i = 0; i < 3; ++i) {
      threads.emplace_back([&, i] { RunLargeBatches(*instances[i], 3 * seed + i, &outcomes); });
    }
    for (std::thread& thread : threads) thread.join();
    for (const auto& instance : instances) AwaitAvailable(*instance, true);
  }
  EXPECT_EQ(outcomes.wrong, 0);
  EXPECT_GT(outcomes.right, 100);
  EXPECT_GT(outcomes.failed, 0);
  EXPECT_GT(outcomes.unavailable, 0);
  EXPECT_THAT(AboutPlan(*instances[0]), HasSubstr("elsewhere=0 "));
}

}  // namespace
}  // namespace penstock
