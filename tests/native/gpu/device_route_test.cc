// Batches whose tensors lie elsewhere than in their slot's pinned memory, on a device by each way of
// calling it: in gpu_test on fake GPUs, in cuda_test on a real one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gpu/registered_memory.h"
#include "row_harness.h"
#include "testing/gpu_schedule.h"
#include "worker/slab.h"

namespace penstock::gpu {
namespace {

constexpr LaneGroupOptions kOneSlot{.lanes = 1, .slots_per_lane = 1, .measure_runs = 0};
constexpr int kSchedules = 30;
constexpr size_t kSubmitters = 3;

// Where a batch's tensors lie: the first rows of inputs on the host, the others in a room, where
// outputs go too, or to the host.
struct Placing {
  uint32_t rows = RowEngine::kMaxRows;
  uint32_t host_rows = 0;
  uint8_t* registered = nullptr;  // those of the host are there, else in the slot's memory
  bool has_outputs = true;        // in the room
  bool is_read_on_host = true;    // and in the slot's memory
};

class DeviceRouteTest : public RowDeviceTest {
 protected:
  // The slab as memory that devices read and write by themselves, until what is returned goes.
  std::shared_ptr<void> Register(Slab& slab) {
    auto registration = registered_->Register({slab.data(), slab.size()}, 0, device_->health());
    EXPECT_NE(registration, nullptr);
    return registration;
  }
  void SetUp() override {
    RowDeviceTest::SetUp();
    if (rows_.api != nullptr) registered_ = std::make_unique<RegisteredMemory>(api());
  }
  int Devices() {
    int count = 0;
    EXPECT_EQ(api().DeviceCount(&count), Error::kSuccess);
    return count;
  }

  std::unique_ptr<RegisteredMemory> registered_;
};

void AddInput(Route& route, size_t tensor, const Placing& at, const void* on_host, size_t row_bytes,
              const void* there, int device) {
  const size_t host_bytes = at.host_rows * row_bytes;
  const size_t bytes = at.rows * row_bytes;
  if (host_bytes > 0) route.inputs.push_back({tensor, on_host, host_bytes});
  if (host_bytes == bytes) return;
  const auto* from = static_cast<const uint8_t*>(there) + host_bytes;
  route.inputs.push_back({tensor, from, bytes - host_bytes, device});
}

// Whether the batch is answered rightly wherever it was to be.
bool RunPlaced(LaneGroup& group, DeviceRoom& room, const Placing& at, int id) {
  auto lease = group.Acquire();
  if (!lease.ok()) return false;
  const RowTensors host = at.registered == nullptr ? RowTensors(*lease) : RowTensors(at.registered);
  const RowTensors there = room.there();
  host.Fill(id, 0, at.host_rows);
  room.host().Fill(id, at.host_rows, at.rows);
  std::fill_n(room.host().y, RowEngine::kMaxRows * RowEngine::kWidth, -1.0F);
  room.Put();
  Route route;
  AddInput(route, 0, at, host.x, RowEngine::kRowBytes, there.x, room.device());
  AddInput(route, 1, at, host.b, sizeof(float), there.b, room.device());
  if (at.has_outputs) {
    route.outputs = {
        {0, 0, at.rows, there.y, RowEngine::kMaxRows * RowEngine::kRowBytes, room.device()},
        {1, 0, at.rows, there.n, RowEngine::kMaxRows * sizeof(uint32_t), room.device()}};
    if (!at.is_read_on_host) route.unread = {0, 1};
  }
  SlotLease back;
  const Status status = RunBatch(group, *std::move(lease), at.rows, std::move(route), &back);
  EXPECT_TRUE(status.ok()) << status.ToString();
  if (!status.ok()) return false;
  room.Take();
  if (at.has_outputs && !room.host().IsRight(id, at.rows)) return false;
  return (at.has_outputs && !at.is_read_on_host) || RowTensors(back).IsRight(id, at.rows);
}

TEST_P(DeviceRouteTest, TensorsOnTheDevice_AreReadAndWrittenThere) {
  auto group = Load(kOneSlot);
  ASSERT_NE(group, nullptr);
  DeviceRoom room(api(), 0);
  EXPECT_TRUE(RunPlaced(*group, room, {.is_read_on_host = false}, 1));
  EXPECT_TRUE(RunPlaced(*group, room, {.rows = 3}, 2));
  EXPECT_TRUE(RunPlaced(*group, room, {.host_rows = 3}, 3));
  EXPECT_TRUE(RunPlaced(*group, room, {.host_rows = 8, .has_outputs = false}, 4));
}

TEST_P(DeviceRouteTest, TensorsOnAnotherDevice_AreCopiedFromGpuToGpu) {
  if (Devices() < 2) GTEST_SKIP() << "this machine has one GPU: nothing is copied between two";
  auto group = Load(kOneSlot);
  ASSERT_NE(group, nullptr);
  DeviceRoom room(api(), 1);
  EXPECT_TRUE(RunPlaced(*group, room, {.is_read_on_host = false}, 1));
  EXPECT_TRUE(RunPlaced(*group, room, {.rows = 5, .host_rows = 3}, 2));
}

TEST_P(DeviceRouteTest, RegisteredSlab_IsReadWhereItLies) {
  auto group = Load(kOneSlot);
  ASSERT_NE(group, nullptr);
  auto slab = Slab::Create(2 * Slab::kPageBytes + RowTensors::kBytes);
  ASSERT_TRUE(slab.ok()) << slab.status().ToString();
  const auto registration = Register(**slab);
  DeviceRoom room(api(), 0);
  uint8_t* const odd = (*slab)->data() + Slab::kPageBytes + 4;
  EXPECT_TRUE(RunPlaced(*group, room, {.host_rows = 8, .registered = odd}, 1));
  EXPECT_TRUE(
      RunPlaced(*group, room, {.host_rows = 5, .registered = odd, .has_outputs = false}, 2));
}

// Slab -> device -> there -> slab, each way in pieces.
TEST_P(DeviceRouteTest, RegisteredSlab_IsCopiedToAndFromInBatches) {
  constexpr size_t kHalf = size_t{1} << 20;
  auto slab = Slab::Create(2 * kHalf);
  ASSERT_TRUE(slab.ok()) << slab.status().ToString();
  auto registration = Register(**slab);
  EXPECT_TRUE(registered_->Contains({(*slab)->data(), 2 * kHalf}));
  uint8_t* const from = (*slab)->data();
  uint8_t* const to = from + kHalf;
  for (size_t i = 0; i < kHalf; ++i) from[i] = static_cast<uint8_t>(i * 31 % 253);
  Stream stream = nullptr;
  void* data = nullptr;
  ASSERT_EQ(api().CreateStream(&stream), Error::kSuccess);
  ASSERT_EQ(api().AllocateAsync(2 * kHalf, stream, &data), Error::kSuccess);
  auto* const first = static_cast<uint8_t*>(data);
  uint8_t* const second = first + kHalf;
  const auto copy = [&](uint8_t* target, const uint8_t* source, CopyKind kind) {
    const Copy pieces[] = {{target, source, 1001},
                           {target + 1001, source + 1001, 4096},
                           {target + 5097, source + 5097, kHalf - 5097}};
    EXPECT_EQ(api().CopyBatchAsync(pieces, kind, stream), Error::kSuccess);
  };
  copy(first, from, CopyKind::kHostToDevice);
  copy(second, first, CopyKind::kDeviceToDevice);
  copy(to, second, CopyKind::kDeviceToHost);
  ASSERT_EQ(api().SynchronizeStream(stream), Error::kSuccess);
  EXPECT_EQ(std::memcmp(to, from, kHalf), 0);
  EXPECT_EQ(api().RegisterHost(from, kHalf), Error::kHostMemoryAlreadyRegistered);
  static_cast<void>(api().TakeLastError());
  registration.reset();
  EXPECT_FALSE(registered_->Contains({from, 1}));
  registration = Register(**slab);  // it may be registered anew
  EXPECT_EQ(api().FreeAsync(data, stream), Error::kSuccess);
  EXPECT_EQ(api().SynchronizeStream(stream), Error::kSuccess);
  EXPECT_EQ(api().DestroyStream(stream), Error::kSuccess);
}

// What a thread of a schedule submits, one batch after another.
void RunSome(Api& api, LaneGroup& group, uint8_t* slab, int devices, uint64_t seed) {
  GpuSchedule schedule(seed);
  ASSERT_EQ(api.SetDevice(0), Error::kSuccess);
  std::vector<std::unique_ptr<DeviceRoom>> rooms;
  for (int i = 0; i < std::min(devices, 2); ++i) {
    rooms.push_back(std::make_unique<DeviceRoom>(api, i));
  }
  for (int i = schedule.Pick(4, 20); i > 0; --i) {
    Placing at;
    at.rows = static_cast<uint32_t>(schedule.Pick(1, RowEngine::kMaxRows));
    at.host_rows = static_cast<uint32_t>(schedule.Pick(0, static_cast<int>(at.rows)));
    if (schedule.Pick(0, 1) == 0) at.registered = slab;
    at.has_outputs = schedule.Pick(0, 2) > 0;
    at.is_read_on_host = schedule.Pick(0, 1) == 0;
    DeviceRoom& room = *rooms[schedule.random() % rooms.size()];
    EXPECT_TRUE(RunPlaced(group, room, at, schedule.Pick(0, 999)));
  }
}

TEST_P(DeviceRouteTest, RandomSchedules_AnswerNothingWrong) {
  auto slab = Slab::Create(kSubmitters * RowTensors::kBytes);
  ASSERT_TRUE(slab.ok()) << slab.status().ToString();
  const auto registration = Register(**slab);
  const int devices = Devices();
  for (uint64_t seed = 1; seed <= kSchedules && !HasFailure(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    GpuSchedule schedule(seed);
    auto group = Load({.lanes = static_cast<size_t>(schedule.Pick(1, 2)),
                       .slots_per_lane = static_cast<size_t>(schedule.Pick(1, 3)),
                       .bucket_rows = {2, 8},
                       .graph_budget_bytes = schedule.Pick(0, 3) > 0 ? size_t{1} << 30 : 0,
                       .measure_runs = static_cast<size_t>(schedule.Pick(0, 1))});
    ASSERT_NE(group, nullptr);
    std::vector<std::thread> submitters;
    for (size_t i = 0; i < kSubmitters; ++i) {
      submitters.emplace_back([&, i, sub = schedule.random()] {
        RunSome(api(), *group, (*slab)->data() + i * RowTensors::kBytes, devices, sub);
      });
    }
    for (std::thread& submitter : submitters) submitter.join();
  }
}

INSTANTIATE_TEST_SUITE_P(Apis, DeviceRouteTest,
                         ::testing::Values(RowApi::kRuntime, RowApi::kDriver), NameOf);

}  // namespace
}  // namespace penstock::gpu
