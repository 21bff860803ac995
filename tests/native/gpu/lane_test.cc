#include "gpu/lane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "gpu_harness.h"
#include "testing/fake_clock.h"

namespace penstock::gpu {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(LaneTest, DoubleBuffered_AnswersAreRight) {
  FakeDevice device({.max_yields = 4});
  auto group = device.Load({.lanes = 2});
  ASSERT_TRUE(group.ok());
  Ledger ledger(device);
  for (uint32_t i = 0; i < 300; ++i) {
    auto lease = (*group)->Acquire();
    ASSERT_TRUE(lease.ok());
    ledger.Submit(**group, std::move(*lease), i % device.engine.max_rows() + 1);
  }
  ledger.AwaitAll();
  EXPECT_EQ(ledger.succeeded(), 300);
  EXPECT_EQ(ledger.wrong(), 0);
  EXPECT_EQ(ledger.twice(), 0);
  EXPECT_THAT(device.gpu.races(), IsEmpty());
  EXPECT_EQ(device.gpu.pageable_copies(), 0);
}

TEST(LaneTest, ManySubmitters_AnswersAreRight) {
  FakeDevice device({.max_yields = 2});
  auto group = device.Load({.lanes = 3});
  ASSERT_TRUE(group.ok());
  Ledger ledger(device);
  std::vector<std::thread> submitters;
  for (int t = 0; t < 3; ++t) {
    submitters.emplace_back([&] {
      for (uint32_t i = 0; i < 60; ++i) {
        ledger.Submit(**group, std::move(*(*group)->Acquire()), i % 8 + 1);
      }
    });
  }
  for (std::thread& submitter : submitters) submitter.join();
  ledger.AwaitAll();
  EXPECT_EQ(ledger.succeeded(), 180);
  EXPECT_EQ(ledger.wrong(), 0);
  EXPECT_THAT(device.gpu.races(), IsEmpty());
}

TEST(LaneTest, SlotBytes_AreWhatASlotTakes) {
  FakeGpu gpu;
  FakeGpuEngine engine(gpu, {.max_rows = 64, .width = 1000});
  const auto slot_bytes = SlotBytes(engine);
  ASSERT_TRUE(slot_bytes.ok());
  const auto device = Device::Open(gpu, Clock::System(), {});
  ASSERT_TRUE(device.ok());
  for (const size_t missing : {size_t{0}, PinnedPool::kAlignment}) {
    const auto pool =
        PinnedPool::Create(gpu, (*device)->health(), *slot_bytes - missing, /*blocks=*/2);
    ASSERT_TRUE(pool.ok());
    const auto group = LaneGroup::Load((*device)->resources(**pool), engine, {.lanes = 1});
    EXPECT_EQ(group.ok(), missing == 0) << group.status().ToString();
  }
}

// FakeGpuEngine on a stream of the test's.
class EngineOnStream final : public DeviceEngine {
 public:
  EngineOnStream(FakeGpuEngine& engine, Stream stream) : engine_(engine), stream_(stream) {}
  const std::string& name() const override { return engine_.name(); }
  const std::vector<DeviceTensor>& inputs() const override { return engine_.inputs(); }
  const std::vector<DeviceTensor>& outputs() const override { return engine_.outputs(); }
  uint32_t max_rows() const override { return engine_.max_rows(); }
  bool takes_any_rows() const override { return true; }
  Result<Stream> ComputeStream() override { return stream_; }
  Result<std::unique_ptr<DeviceContext>> CreateContext(const Bindings& bindings, uint32_t rows,
                                                       Stream stream) override {
    return engine_.CreateContext(bindings, rows, stream);
  }

 private:
  FakeGpuEngine& engine_;
  const Stream stream_;
};

TEST(LaneTest, DeviceIsBusy_WhileABatchIsComputedAndNotWhileItIsCopied) {
  FakeClock clock;
  FakeDevice device({}, {}, clock);
  Stream stream = nullptr;
  ASSERT_EQ(device.gpu.CreateStream(&stream), Error::kSuccess);
  EngineOnStream engine(device.engine, stream);
  auto group = LaneGroup::Load(
      device.device->resources(*device.pool), engine,
      {.lanes = 1, .slots_per_lane = 1, .graph_budget_bytes = 0, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  std::promise<void> copies, computes;
  device.gpu.DelayNextCopy([wait = copies.get_future().share()] { wait.wait(); });
  ASSERT_EQ(device.gpu.Launch(stream, {.run =
                                           [&computes] {
                                             computes.get_future().wait();
                                             return Error::kSuccess;
                                           }}),
            Error::kSuccess);
  SlotLease lease = (*group)->TryAcquire();
  const Event copied_in = lease.slot().copied_in.get();
  const Event copied_out = lease.slot().copied_out.get();
  Ledger ledger(device);
  ledger.Submit(**group, std::move(lease), 8);
  const auto await = [&device](Event event) {
    while (device.gpu.QueryEvent(event) != Error::kSuccess) std::this_thread::yield();
  };
  const auto busy_a_millisecond_later = [&](int64_t pause_ns) {
    clock.Advance(kNsPerMs);
    clock.AwaitWaitersUntil(clock.NowNs() + pause_ns);
    return (*group)->counts().busy_ns;
  };
  EXPECT_EQ(busy_a_millisecond_later(kNsPerMs / 16), 0U) << "it is copied";
  copies.set_value();
  await(copied_in);
  EXPECT_EQ(busy_a_millisecond_later(2 * kNsPerMs / 16), 0U) << "noticed now";
  EXPECT_EQ(busy_a_millisecond_later(3 * kNsPerMs / 16), 1U * kNsPerMs);
  computes.set_value();
  await(copied_out);
  clock.Advance(kNsPerMs);
  ledger.AwaitAll();
  EXPECT_EQ(ledger.wrong(), 0);
  EXPECT_EQ((*group)->counts().busy_ns, 2U * kNsPerMs);
}

// As an engine does that launches its kernels one by one: the first ones run by then.
TEST(LaneTest, DeviceIsBusy_WhileTheEngineEnqueuesWhatItComputes) {
  FakeClock clock;
  FakeDevice device({}, {}, clock);
  auto group =
      device.Load({.lanes = 1, .slots_per_lane = 1, .graph_budget_bytes = 0, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  SlotLease lease = (*group)->TryAcquire();
  device.engine.CallAtNextEnqueue([&, copied_in = lease.slot().copied_in.get()] {
    while (device.gpu.QueryEvent(copied_in) != Error::kSuccess) std::this_thread::yield();
    clock.Advance(3 * kNsPerMs);
  });
  Ledger ledger(device);
  ledger.Submit(**group, std::move(lease), 8);
  ledger.AwaitAll();
  EXPECT_EQ(ledger.succeeded(), 1);
  EXPECT_EQ((*group)->counts().busy_ns, 3U * kNsPerMs);
}

// An engine may launch kernel by kernel for as long as a batch computes.
TEST(LaneTest, CopyIn_DoesNotWaitForAnEngineThatEnqueues) {
  FakeDevice device;
  auto group =
      device.Load({.lanes = 1, .slots_per_lane = 2, .graph_budget_bytes = 0, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  Ledger ledger(device);
  std::promise<void> copied;
  std::thread other;
  bool was_copied = false;
  device.engine.CallAtNextEnqueue([&] {
    device.gpu.DelayNextCopy([&] { copied.set_value(); });
    other = std::thread([&] { ledger.Submit(**group, (*group)->TryAcquire(), 8); });
    was_copied =
        copied.get_future().wait_for(std::chrono::seconds(30)) == std::future_status::ready;
  });
  ledger.Submit(**group, (*group)->TryAcquire(), 8);
  other.join();
  ledger.AwaitAll();
  EXPECT_TRUE(was_copied);
  EXPECT_EQ(ledger.succeeded(), 2);
  EXPECT_EQ(ledger.wrong(), 0);
  EXPECT_THAT(device.gpu.races(), IsEmpty());
}

TEST(LaneTest, BatchesInFlight_AreBoundedBySlots) {
  FakeDevice device;
  auto group = device.Load({.lanes = 2, .slots_per_lane = 2});
  ASSERT_TRUE(group.ok());
  Ledger ledger(device);
  device.gpu.HoldStreams();
  for (size_t i = 0; i < (*group)->slots(); ++i) {
    SlotLease lease = (*group)->TryAcquire();
    ASSERT_TRUE(lease);
    ledger.Submit(**group, std::move(lease), 1);
  }
  EXPECT_FALSE((*group)->TryAcquire()) << "back-pressure, and no other memory";
  device.gpu.ReleaseStreams();
  ledger.AwaitAll();
  EXPECT_EQ(ledger.succeeded(), 4);
  EXPECT_TRUE((*group)->Acquire().ok());
}

TEST(LaneTest, Slots_AreTakenInTurnFromAllLanes) {
  FakeDevice device;
  auto group = device.Load({.lanes = 2, .slots_per_lane = 2});
  ASSERT_TRUE(group.ok());
  std::vector<SlotLease> leases;
  std::map<Lane*, int> taken;
  for (int i = 0; i < 4; ++i) {
    leases.push_back((*group)->TryAcquire());
    if (i < 2) ++taken[leases.back().slot().lane];
  }
  EXPECT_EQ(taken.size(), 2U) << "the first two batches go to two lanes";
}

TEST(LaneTest, OutputsStay_WhileTheLeaseIsKept) {
  FakeDevice device;
  auto group = device.Load({.lanes = 1, .slots_per_lane = 2});
  ASSERT_TRUE(group.ok());
  Mutex mu;
  CondVar changed;
  SlotLease kept;
  SlotLease lease = (*group)->TryAcquire();
  const Slot* slot = &lease.slot();
  (*group)->Submit(std::move(lease), 8, [&](const Status& status, SlotLease back) {
    EXPECT_TRUE(status.ok());
    MutexLock lock(mu);
    kept = std::move(back);
    changed.NotifyAll();
  });
  {
    MutexLock lock(mu);
    while (!kept) changed.Wait(mu);
  }
  Ledger ledger(device);
  for (int i = 0; i < 5; ++i) {
    auto other = (*group)->Acquire();
    EXPECT_NE(&(*other).slot(), slot);
    ledger.Submit(**group, std::move(*other), 8);
  }
  ledger.AwaitAll();
  EXPECT_EQ(reinterpret_cast<const uint32_t*>(kept.output(1))[7], 7U);
  EXPECT_EQ(ledger.wrong(), 0);
}

TEST(LaneTest, PaddedRows_NeverHoldWhatLayInMemory) {
  FakeDevice device({}, {.takes_any_rows = false});  // the fake fills new memory with 0xa5
  auto group = device.Load({.lanes = 1, .slots_per_lane = 1, .bucket_rows = {8}});
  ASSERT_TRUE(group.ok());
  SlotLease lease = (*group)->TryAcquire();
  const auto* x = static_cast<const float*>(lease.slot().bindings.inputs[0]);
  for (size_t i = 0; i < 8 * 16; ++i) ASSERT_EQ(x[i], 0.0F) << i;
}

TEST(LaneTest, RowsThatDoNotFit_AreRefusedWithTheModelsName) {
  FakeDevice device;
  auto group = device.Load();
  ASSERT_TRUE(group.ok());
  for (const uint32_t rows : {0U, 9U, UINT32_MAX}) {
    Status answer;
    (*group)->Submit((*group)->TryAcquire(), rows,
                     [&](const Status& status, const SlotLease&) { answer = status; });
    EXPECT_EQ(answer.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(answer.message()), HasSubstr("fake: a batch has"));
  }
}

TEST(LaneTest, Load_RefusesWhatCannotBe) {
  FakeDevice device;
  EXPECT_EQ(device.Load({.lanes = 0}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(device.Load({.slots_per_lane = 0}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(device.Load({.bucket_rows = {1, 4}}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(device.Load({.lanes = 9, .slots_per_lane = 2}).status().code(),
            StatusCode::kResourceExhausted)
      << "16 pinned blocks are not enough for 18 slots";
  EXPECT_TRUE(device.HasAllBlocks());
}

TEST(LaneTest, TensorsThatAreTooLarge_AreRefusedByName) {
  FakeDevice device({}, {.max_rows = UINT32_MAX, .width = size_t{1} << 40});
  const auto group = device.Load();
  EXPECT_EQ(group.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(group.status().message()), HasSubstr("'x'"));
}

TEST(LaneTest, DeviceWithoutMemory_RefusesTheLoad) {
  FakeDevice device({.memory_bytes = 100});
  const auto group = device.Load();
  EXPECT_EQ(group.status().code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(group.status().message()), HasSubstr("of fake"));
  EXPECT_FALSE(device.health.is_faulted());
}

TEST(LaneTest, Shutdown_WaitsForWhatIsInFlight) {
  FakeDevice device({.max_yields = 20});
  auto group = device.Load();
  ASSERT_TRUE(group.ok());
  Ledger ledger(device);
  for (int i = 0; i < 4; ++i) ledger.Submit(**group, (*group)->TryAcquire(), 8);
  group = Result<std::unique_ptr<LaneGroup>>(std::unique_ptr<LaneGroup>());
  EXPECT_TRUE(device.HasAllBlocks());
  ledger.AwaitAll();  // the last slot came back a moment before its batch was entered
  EXPECT_EQ(ledger.succeeded(), 4);
  EXPECT_EQ(ledger.wrong(), 0);
}

TEST(LaneTest, Shutdown_WakesWhoWaitsForASlot) {
  FakeClock clock;
  FakeDevice device({}, {}, clock);
  auto group = device.Load({.lanes = 1, .slots_per_lane = 1, .measure_runs = 0});
  ASSERT_TRUE(group.ok());
  SlotLease lease = (*group)->TryAcquire();
  std::thread waiter([waited_for = (*group).get(), &lease] {
    EXPECT_EQ(waited_for->Acquire().status().code(), StatusCode::kUnavailable);
    lease = SlotLease();  // not before: the waiter would take its slot
  });
  clock.AwaitWaiters(1);
  group = Result<std::unique_ptr<LaneGroup>>(std::unique_ptr<LaneGroup>());
  waiter.join();
}

// A clock whose waiters are slow to go on once they are woken.
class SlowToGoOn final : public Clock {
 public:
  int64_t NowNs() const override { return 0; }
  void WaitUntil(CondVar& cv, Mutex& mu, int64_t /*deadline_ns*/) override REQUIRES(mu) {
    is_waiting.store(true);
    cv.Wait(mu);
    mu.Unlock();
    for (int i = 0; i < 30; ++i) std::this_thread::yield();
    mu.Lock();
    is_waiting.store(false);
  }
  std::atomic<bool> is_waiting{false};
};

TEST(FreeSlotsTest, AwaitAll_WaitsForWhoWaitsAlthoughAllSlotsAreBack) {
  for (int round = 0; round < 5; ++round) {
    SlowToGoOn clock;
    auto free = std::make_unique<FreeSlots>();
    std::thread waiter([&clock, &free = *free] {
      EXPECT_EQ(free.Take(clock).status().code(), StatusCode::kUnavailable);
    });
    while (!clock.is_waiting.load()) std::this_thread::yield();
    free->Close(Unavailable("at the end"));
    free->AwaitAll(0);
    EXPECT_FALSE(clock.is_waiting.load());
    free.reset();
    waiter.join();
  }
}

TEST(LaneTest, Group_MayGoBeforeSubmitHasReturned) {
  FakeDevice device;
  for (int round = 0; round < 30; ++round) {
    auto group =
        device.Load({.lanes = 1, .slots_per_lane = 1, .graph_budget_bytes = 0, .measure_runs = 0});
    ASSERT_TRUE(group.ok());
    Mutex mu;
    CondVar changed;
    bool is_done = false;
    std::thread submitter([&, &group = **group] {
      group.Submit(group.TryAcquire(), 1, [&](const Status& status, const SlotLease&) {
        EXPECT_TRUE(status.ok());
        MutexLock lock(mu);
        is_done = true;
        changed.NotifyAll();
      });
    });
    {
      MutexLock lock(mu);
      while (!is_done) changed.Wait(mu);
    }
    group = Result<std::unique_ptr<LaneGroup>>(std::unique_ptr<LaneGroup>());
    submitter.join();
  }
}

}  // namespace
}  // namespace penstock::gpu
