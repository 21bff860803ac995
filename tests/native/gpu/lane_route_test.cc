// Batches whose tensors lie elsewhere than in their slot's pinned memory: how they are copied, and how
// long what they hold is kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpu_harness.h"

namespace penstock::gpu {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr LaneGroupOptions kOneRouteSlot{.lanes = 1, .slots_per_lane = 1, .measure_runs = 0};
constexpr size_t kWidth = 16;
constexpr size_t kRowBytes = kWidth * sizeof(float);

// Copies since the one before was made.
struct Copies {
  explicit Copies(const FakeGpu& gpu) : gpu(gpu) { Take(); }

  std::string Take() {
    const int now[] = {gpu.copies(CopyKind::kHostToDevice), gpu.copies(CopyKind::kDeviceToDevice),
                       gpu.peer_copies(), gpu.copies(CopyKind::kDeviceToHost)};
    std::string text;
    for (size_t i = 0; i < 4; ++i) {
      text += (i == 0 ? "" : " ") + std::to_string(now[i] - before[i]);
      before[i] = now[i];
    }
    return text;  // to the device, on it, to or from another, to the host
  }

  const FakeGpu& gpu;
  int before[4] = {};
};

class LaneRouteTest : public ::testing::Test {
 protected:
  explicit LaneRouteTest(const FakeGpuEngineOptions& engine = {},
                         const LaneGroupOptions& options = kOneRouteSlot)
      : device_({.devices = 2}, engine), group_(device_.Load(options)) {}

  // How a batch of 8 rows ends.
  Status Run(uint32_t rows, Route route) {
    Status ended;
    Mutex mu;
    CondVar over;
    bool is_over = false;
    (*group_)->Submit(
        *(*group_)->Acquire(), rows,
        [&](const Status& status, SlotLease) {
          MutexLock lock(mu);
          ended = status;
          is_over = true;
          over.NotifyOne();
        },
        &route);
    MutexLock lock(mu);
    while (!is_over) over.Wait(mu);
    return ended;
  }
  RoomUse Room(int number = 0) {
    return {.room = ClientRoom::TryMake(device_.gpu, ledger_.RoomBytes(), number)};
  }
  std::string CopiesOf(const RoomUse& use) {
    Copies copies(device_.gpu);
    ledger_.SubmitRouted(**group_, *(*group_)->Acquire(), 8, use);
    ledger_.AwaitAll();
    return copies.Take();
  }

  FakeDevice device_;
  Ledger ledger_{device_};
  Result<std::unique_ptr<LaneGroup>> group_;
};

class LaneHostInputTest : public LaneRouteTest {
 protected:
  static LaneGroupOptions WithoutGraphs() {
    LaneGroupOptions options = kOneRouteSlot;
    options.graph_budget_bytes = 0;
    return options;
  }
  LaneHostInputTest() : LaneRouteTest({.has_host_input = true}, WithoutGraphs()) {}
};

TEST_F(LaneHostInputTest, Batches_AreRightAndNothingOfItIsCopied) {
  Copies copies(device_.gpu);
  for (uint32_t rows = 1; rows <= 8; ++rows) {
    ledger_.Submit(**group_, *(*group_)->Acquire(), rows);
    ledger_.AwaitAll();
    EXPECT_EQ(copies.Take(), "1 0 0 2");
  }
  EXPECT_EQ(ledger_.succeeded(), 8);
  EXPECT_EQ(ledger_.wrong(), 0);
}

TEST_F(LaneHostInputTest, Routes_BringItFromTheHostAlone) {
  const RoomUse use = Room();
  Copies copies(device_.gpu);
  const Status refused = Run(4, {.inputs = {{1, use.room->data(), 4 * sizeof(float), 0}}});
  EXPECT_EQ(refused.code(), StatusCode::kInternal);
  EXPECT_THAT(refused.ToString(), HasSubstr("not in the host's memory, where it stays"));
  EXPECT_EQ(copies.Take(), "0 0 0 0");
  const std::vector<float> b(4, 3.0F);  // pageable: the host itself reads it
  EXPECT_TRUE(Run(4, {.inputs = {{1, b.data(), 4 * sizeof(float)}}}).ok());
  EXPECT_EQ(copies.Take(), "1 0 0 2");
  const SlotLease lease = *(*group_)->Acquire();
  float read = 0;
  std::memcpy(&read, lease.input(1), sizeof(read));
  EXPECT_EQ(read, 3.0F);
}

TEST_F(LaneRouteTest, TensorsInARoom_AreCopiedOnTheDeviceAndNowhereElse) {
  RoomUse use = Room();
  use.is_read_on_host = false;
  EXPECT_EQ(CopiesOf(use), "0 4 0 0");
  use = Room(1);
  use.is_read_on_host = false;
  EXPECT_EQ(CopiesOf(use), "0 0 4 0");
  EXPECT_EQ(ledger_.succeeded(), 2);
  EXPECT_EQ(ledger_.wrong(), 0);
}

TEST_F(LaneRouteTest, TensorsInRegisteredMemory_AreCopiedOnceEach) {
  RoomUse use = Room(kHostMemory);
  use.is_read_on_host = false;
  EXPECT_EQ(CopiesOf(use), "2 0 0 2");
  EXPECT_EQ(CopiesOf(Room(kHostMemory)), "2 0 0 4");
  EXPECT_EQ(ledger_.succeeded(), 2);
  EXPECT_EQ(ledger_.wrong(), 0);
  EXPECT_EQ(device_.gpu.pageable_copies(), 0);
}

TEST_F(LaneRouteTest, SomeRowsInARoom_GoEachItsOwnWay) {
  RoomUse use = Room();
  use.host_rows = 3;
  EXPECT_EQ(CopiesOf(use), "2 4 0 2");
  use = Room();
  use.has_outputs = false;
  EXPECT_EQ(CopiesOf(use), "0 2 0 2");
  EXPECT_EQ(ledger_.succeeded(), 2);
  EXPECT_EQ(ledger_.wrong(), 0);
}

TEST_F(LaneRouteTest, RegisteredMemory_IsCopiedFromWhereItLies) {
  std::vector<float> x(8 * kWidth, 1.0F);
  ASSERT_EQ(device_.gpu.RegisterHost(x.data(), x.size() * sizeof(float)), Error::kSuccess);
  const int pageable = device_.gpu.pageable_copies();
  EXPECT_TRUE(Run(8, {.inputs = {{0, x.data(), 8 * kRowBytes}}}).ok());
  EXPECT_EQ(device_.gpu.pageable_copies(), pageable);
  ASSERT_EQ(device_.gpu.UnregisterHost(x.data()), Error::kSuccess);
}

TEST_F(LaneRouteTest, RowsThatDoNotFitTheirRoom_AreNotCopied) {
  const RoomUse use = Room();
  Copies copies(device_.gpu);
  EXPECT_TRUE(Run(8, {.outputs = {{0, 0, 8, use.room->data(), 8 * kRowBytes - 1, 0}}}).ok());
  EXPECT_EQ(copies.Take(), "2 0 0 2");
}

TEST_F(LaneRouteTest, RouteThatDoesNotFitTheBatch_IsRefusedUnrun) {
  const RoomUse use = Room();
  const uint8_t* at = use.room->data();
  Copies copies(device_.gpu);
  const auto refusal = [&](Route route) {
    const Status status = Run(4, std::move(route));
    EXPECT_EQ(status.code(), StatusCode::kInternal);
    return std::string(status.message());
  };
  EXPECT_EQ(refusal({.inputs = {{0, at, 3 * kRowBytes, 0}}}),
            "fake: input 'x' is given 192 bytes, expected 256");
  EXPECT_EQ(refusal({.inputs = {{0, at, 4 * kRowBytes, 0}, {0, at, 1, 0}}}),
            "fake: input 'x' is given 257 bytes, expected 256");
  EXPECT_THAT(refusal({.inputs = {{2, at, kRowBytes, 0}}}), HasSubstr("input 2 of 2"));
  EXPECT_THAT(refusal({.inputs = {{0, nullptr, 4 * kRowBytes, 0}}}), HasSubstr("nowhere"));
  EXPECT_THAT(refusal({.outputs = {{0, 3, 2, use.room->data(), 1024, 0}}}),
              HasSubstr("rows 3 to 5 of output 0 are none of 4 rows"));
  EXPECT_THAT(refusal({.outputs = {{2, 0, 1, use.room->data(), 1024, 0}}}), HasSubstr("output 2"));
  EXPECT_EQ(copies.Take(), "0 0 0 0");
}

TEST_F(LaneRouteTest, CopyThatFails_FailsItsBatchAlone) {
  const QuietLog quiet;
  for (const char* call : {"CopyBatchAsync", "CopyPeerAsync"}) {
    const int number = call == std::string("CopyPeerAsync") ? 1 : 0;
    for (int nth = 1; nth <= 2; ++nth) {
      RoomUse use = Room(number);
      use.is_read_on_host = false;
      const int before = ledger_.Count(StatusCode::kInternal);
      device_.gpu.FailCall(call, nth, Error::kInvalidValue);
      CopiesOf(use);
      EXPECT_EQ(ledger_.Count(StatusCode::kInternal), before + 1) << call << nth;
      CopiesOf(Room(number));
      EXPECT_EQ(ledger_.Count(StatusCode::kInternal), before + 1) << call << nth;
    }
  }
  EXPECT_EQ(ledger_.wrong(), 0);
  EXPECT_FALSE(device_.health.is_faulted());
  EXPECT_THAT(device_.gpu.races(), IsEmpty());
}

TEST_F(LaneRouteTest, WhatABatchHolds_IsKeptUntilItIsOver) {
  RoomUse use = Room();
  use.has_outputs = false;
  const std::weak_ptr<ClientRoom> room = use.room;
  device_.gpu.HoldStreams();
  ledger_.SubmitRouted(**group_, (*group_)->TryAcquire(), 8, use);
  use.room.reset();  // its client is gone
  EXPECT_FALSE(room.expired());
  device_.gpu.ReleaseStreams();
  ledger_.AwaitAll();
  EXPECT_EQ(ledger_.succeeded(), 1);
  EXPECT_TRUE(room.expired());
}

TEST_F(LaneRouteTest, WhatAFailedBatchHolds_IsKeptUntilTheDeviceIsThrough) {
  const QuietLog quiet;
  RoomUse use = Room();
  use.has_outputs = false;
  const std::weak_ptr<ClientRoom> room = use.room;
  device_.gpu.HoldStreams();
  device_.gpu.FailCall("LaunchGraph", 1, Error::kInvalidValue);
  ledger_.SubmitRouted(**group_, (*group_)->TryAcquire(), 8, use);
  use.room.reset();
  EXPECT_FALSE(room.expired()) << "its inputs are still being copied";
  device_.gpu.ReleaseStreams();
  ledger_.AwaitAll();
  EXPECT_EQ(ledger_.Count(StatusCode::kInternal), 1);
  EXPECT_TRUE(room.expired());
}

TEST(LaneRouteFaultTest, WhatBatchesOfALostDeviceHold_IsNeverLetGo) {
  const QuietLog quiet;
  std::weak_ptr<ClientRoom> room;
  auto device = std::make_unique<FakeDevice>();
  {
    Ledger ledger(*device);
    auto group = device->Load(kOneRouteSlot);
    ASSERT_TRUE(group.ok());
    RoomUse use{.room = ClientRoom::TryMake(device->gpu, ledger.RoomBytes(), 0),
                .has_outputs = false};
    room = use.room;
    device->gpu.HoldStreams();
    ledger.SubmitRouted(**group, (*group)->TryAcquire(), 8, use);
    use.room.reset();
    device->health.Fault("it hangs");
    ledger.AwaitAll();
    EXPECT_EQ(ledger.Count(StatusCode::kUnavailable), 1);
    EXPECT_FALSE(room.expired()) << "the device may still write there";
    device->gpu.ReleaseStreams();  // it does, and nothing has gone
  }
  EXPECT_FALSE(room.expired());
}

}  // namespace
}  // namespace penstock::gpu
