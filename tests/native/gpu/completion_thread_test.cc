#include "gpu/completion_thread.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "testing/fake_clock.h"
#include "testing/fake_gpu.h"

namespace penstock::gpu {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What was done, in order.
class Done {
 public:
  std::function<void(const Status&)> As(std::string name) {
    return [this, name = std::move(name)](const Status& status) {
      MutexLock lock(mu_);
      entries_.push_back(name + " " + std::string(StatusCodeName(status.code())));
      changed_.NotifyAll();
    };
  }
  std::vector<std::string> Await(size_t count) {
    MutexLock lock(mu_);
    while (entries_.size() < count) changed_.Wait(mu_);
    return entries_;
  }
  size_t count() {
    MutexLock lock(mu_);
    return entries_.size();
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<std::string> entries_ GUARDED_BY(mu_);
};

// What holds a stream until it is opened.
class Gate {
 public:
  FakeWork work() {
    return {.run = [this] {
      MutexLock lock(mu_);
      while (!is_open_) opened_.Wait(mu_);
      return Error::kSuccess;
    }};
  }
  void Open() {
    MutexLock lock(mu_);
    is_open_ = true;
    opened_.NotifyAll();
  }

 private:
  Mutex mu_;
  CondVar opened_;
  bool is_open_ GUARDED_BY(mu_) = false;
};

class CompletionThreadTest : public ::testing::Test {
 protected:
  void Start(Clock& clock, const CompletionOptions& options = {}) {
    for (Stream& stream : streams_) ASSERT_EQ(gpu_.CreateStream(&stream), Error::kSuccess);
    thread_.emplace(gpu_, health_, clock, options);
  }
  Event Record(Stream stream) {
    Event event = nullptr;
    EXPECT_EQ(gpu_.CreateEvent(&event), Error::kSuccess);
    EXPECT_EQ(gpu_.RecordEvent(event, stream), Error::kSuccess);
    return event;
  }

  FakeClock clock_;  // of those tests that start with it
  FakeGpu gpu_;
  DeviceHealth health_{gpu_, "GPU 0"};
  Done done_;
  Stream streams_[2] = {};
  std::optional<CompletionThread> thread_;
};

TEST_F(CompletionThreadTest, EventsOfAStream_AreDoneInTheirOrder) {
  Start(Clock::System());
  gpu_.HoldStreams();
  for (const char* name : {"a", "b", "c"}) {
    thread_->Watch({.events = {Record(streams_[0])}, .done = done_.As(name)});
  }
  EXPECT_EQ(done_.count(), 0U);
  gpu_.ReleaseStreams();
  EXPECT_THAT(done_.Await(3), ElementsAre("a OK", "b OK", "c OK"));
}

TEST_F(CompletionThreadTest, BatchOfAnotherStream_DoesNotWaitForALongerOneBeforeIt) {
  Start(Clock::System());
  Gate slow;
  ASSERT_EQ(gpu_.Launch(streams_[0], slow.work()), Error::kSuccess);
  thread_->Watch({.events = {Record(streams_[0])}, .done = done_.As("long")});
  thread_->Watch({.events = {Record(streams_[1])}, .done = done_.As("short")});
  EXPECT_THAT(done_.Await(1), ElementsAre("short OK"));
  slow.Open();
  EXPECT_THAT(done_.Await(2), ElementsAre("short OK", "long OK"));
}

// Two batches that are copied in, computed and copied out, each step on a stream of its own that a
// gate holds, beside a clock that a test moves.
class BusyTimeTest : public CompletionThreadTest {
 protected:
  enum Step { kIn, kCompute, kOut };
  static constexpr int kSteps = 3;
  static constexpr int64_t kMsNs = 1'000'000;

  void SetUp() override {
    Start(clock_, {.spin_ns = 0, .longest_pause_ns = 0});
    for (int batch = 0; batch < 2; ++batch) {
      Event events[kSteps] = {};
      for (int step = 0; step < kSteps; ++step) {
        Stream& stream = steps_[batch][step];
        ASSERT_EQ(gpu_.CreateStream(&stream), Error::kSuccess);
        ASSERT_EQ(gpu_.Launch(stream, gates_[batch][step].work()), Error::kSuccess);
        events[step] = Record(stream);
      }
      // Since when is for inputs that are there at once, which these are not.
      thread_->Watch(
          {.events = {events[kOut]},
           .computing = {&busy_, events[kIn], events[kCompute], clock_.NowNs() - kNsPerMs},
           .done = done_.As("batch")});
    }
  }
  void TearDown() override {
    for (const int batch : {0, 1}) {
      for (const Step step : {kIn, kCompute, kOut}) End(batch, step);
    }
    clock_.Advance(kMsNs);
    done_.Await(2);
    thread_.reset();
  }
  void End(int batch, Step step) {
    gates_[batch][step].Open();
    EXPECT_EQ(gpu_.SynchronizeStream(steps_[batch][step]), Error::kSuccess);
  }
  // A millisecond later, when everything has been asked for: how many of them were busy.
  uint64_t BusyMsAMillisecondLater() {
    clock_.AwaitWaiters(1);
    clock_.Advance(kMsNs);
    clock_.AwaitWaitersUntil(clock_.NowNs() + 20'000);
    return busy_.ns() / kMsNs;
  }

  BusyTime busy_;
  Gate gates_[2][kSteps];
  Stream steps_[2][kSteps] = {};
};

TEST_F(BusyTimeTest, OverlappingBatches_CountOnceAndCopiesDoNot) {
  EXPECT_EQ(BusyMsAMillisecondLater(), 0U) << "both are copied in";
  End(0, kIn);
  EXPECT_EQ(BusyMsAMillisecondLater(), 0U) << "noticed now";
  EXPECT_EQ(BusyMsAMillisecondLater(), 1U) << "counted as it runs";
  End(1, kIn);
  EXPECT_EQ(BusyMsAMillisecondLater(), 2U);
  EXPECT_EQ(BusyMsAMillisecondLater(), 3U) << "of both";
  End(0, kCompute);
  EXPECT_EQ(BusyMsAMillisecondLater(), 4U);
  EXPECT_EQ(BusyMsAMillisecondLater(), 5U) << "of the other one";
  End(1, kCompute);
  EXPECT_EQ(BusyMsAMillisecondLater(), 6U);
  EXPECT_EQ(BusyMsAMillisecondLater(), 6U) << "both are copied out";
}

TEST_F(BusyTimeTest, TimeBetweenBatches_IsNotCounted) {
  EXPECT_EQ(BusyMsAMillisecondLater(), 0U);
  End(0, kIn);
  EXPECT_EQ(BusyMsAMillisecondLater(), 0U);
  End(0, kCompute);
  EXPECT_EQ(BusyMsAMillisecondLater(), 1U);
  EXPECT_EQ(BusyMsAMillisecondLater(), 1U);
  End(1, kIn);
  EXPECT_EQ(BusyMsAMillisecondLater(), 1U);
  End(1, kCompute);
  EXPECT_EQ(BusyMsAMillisecondLater(), 2U);
}

TEST_F(CompletionThreadTest, FailedBatch_EndsWithItsStatusWhenAllEventsAreOver) {
  Start(Clock::System());
  gpu_.HoldStreams();
  thread_->Watch({.events = {Record(streams_[0]), Record(streams_[1])},
                  .status = Internal("on its way"),
                  .done = done_.As("failed")});
  thread_->Watch({.events = {}, .done = done_.As("empty")});  // polled after the first one
  EXPECT_THAT(done_.Await(1), ElementsAre("empty OK"));
  gpu_.ReleaseStreams();
  EXPECT_THAT(done_.Await(2), ElementsAre("empty OK", "failed INTERNAL"));
}

TEST_F(CompletionThreadTest, StickyError_EndsEverythingUnavailable) {
  Start(Clock::System());
  gpu_.HoldStreams();
  gpu_.FaultWork(1, Error::kIllegalAddress);
  ASSERT_EQ(gpu_.Launch(streams_[0], {.run = [] { return Error::kSuccess; }}), Error::kSuccess);
  const Event behind = Record(streams_[0]);
  ASSERT_EQ(gpu_.StreamWaitEvent(streams_[1], behind), Error::kSuccess);
  thread_->Watch({.events = {behind}, .done = done_.As("a")});
  thread_->Watch({.events = {Record(streams_[1])}, .done = done_.As("b")});
  gpu_.ReleaseStreams();
  EXPECT_THAT(done_.Await(2), ElementsAre("a UNAVAILABLE", "b UNAVAILABLE"));
  EXPECT_TRUE(health_.is_faulted());
  thread_->Watch({.done = done_.As("late")});
  EXPECT_EQ(done_.Await(3).back(), "late UNAVAILABLE");
}

TEST_F(CompletionThreadTest, ErrorThatLeavesTheEndUnknown_FaultsTheDevice) {
  Start(Clock::System());
  const Event event = Record(streams_[0]);
  gpu_.FailCall("QueryEvent", 1, Error::kInvalidResourceHandle);
  thread_->Watch({.events = {event}, .done = done_.As("a")});
  EXPECT_THAT(done_.Await(1), ElementsAre("a UNAVAILABLE"));
  EXPECT_TRUE(health_.is_faulted());
}

TEST_F(CompletionThreadTest, BatchThatDoesNotEnd_FaultsTheDeviceAtTheLimit) {
  Start(clock_, {.spin_ns = 0, .hang_limit_ns = 1'000'000'000});
  gpu_.HoldStreams();
  thread_->Watch({.events = {Record(streams_[0])}, .done = done_.As("hung")});
  clock_.AwaitWaiters(1);
  clock_.Advance(1'000'000'000);
  clock_.AwaitWaitersUntil(FakeClock::kStartNs + 1'000'500'000);
  EXPECT_EQ(done_.count(), 0U) << "at the limit, not beyond it";
  clock_.Advance(1'000'000'000);
  EXPECT_THAT(done_.Await(1), ElementsAre("hung UNAVAILABLE"));
  EXPECT_THAT(std::string(health_.fault().message()), HasSubstr("expected at most 1000"));
  gpu_.ReleaseStreams();
}

TEST_F(CompletionThreadTest, BatchThatEndedWhileNobodyAsked_IsNotHung) {
  Start(clock_, {.spin_ns = 0, .hang_limit_ns = 1'000'000'000});
  gpu_.HoldStreams();
  thread_->Watch({.events = {Record(streams_[0])}, .done = done_.As("a")});
  clock_.AwaitWaiters(1);
  gpu_.ReleaseStreams();
  EXPECT_EQ(gpu_.SynchronizeStream(streams_[0]), Error::kSuccess);
  clock_.Advance(10'000'000'000);  // as after SIGSTOP
  EXPECT_THAT(done_.Await(1), ElementsAre("a OK"));
  EXPECT_FALSE(health_.is_faulted());
}

TEST_F(CompletionThreadTest, NewWork_MakesPausesShortAgain) {
  Start(clock_, {.spin_ns = 0, .longest_pause_ns = 100'000});
  gpu_.HoldStreams();
  thread_->Watch({.events = {Record(streams_[0])}, .done = done_.As("long")});
  clock_.AwaitWaitersUntil(FakeClock::kStartNs + 20'000);
  clock_.AdvanceTo(FakeClock::kStartNs + 8'000'000);
  clock_.AwaitWaitersUntil(FakeClock::kStartNs + 8'100'000);
  thread_->Watch({.events = {Record(streams_[1])}, .done = done_.As("new")});
  clock_.AwaitWaitersUntil(FakeClock::kStartNs + 8'020'000);  // the shortest
  gpu_.ReleaseStreams();
  for (Stream stream : streams_) EXPECT_EQ(gpu_.SynchronizeStream(stream), Error::kSuccess);
  clock_.AdvanceTo(FakeClock::kStartNs + 8'100'000);
  EXPECT_THAT(done_.Await(2), ElementsAre("long OK", "new OK"));
}

TEST_F(CompletionThreadTest, Pauses_GrowWithTheTimeThatNothingEnds) {
  Start(clock_, {.spin_ns = 0, .longest_pause_ns = 100'000});
  gpu_.HoldStreams();
  thread_->Watch({.events = {Record(streams_[0])}, .done = done_.As("a")});
  clock_.AwaitWaitersUntil(FakeClock::kStartNs + 20'000);
  clock_.AdvanceTo(FakeClock::kStartNs + 800'000);
  clock_.AwaitWaitersUntil(FakeClock::kStartNs + 850'000);  // a sixteenth
  clock_.AdvanceTo(FakeClock::kStartNs + 8'000'000);
  clock_.AwaitWaitersUntil(FakeClock::kStartNs + 8'100'000);  // the longest
  gpu_.ReleaseStreams();
  EXPECT_EQ(gpu_.SynchronizeStream(streams_[0]), Error::kSuccess);
  clock_.AdvanceTo(FakeClock::kStartNs + 8'100'000);
  EXPECT_THAT(done_.Await(1), ElementsAre("a OK"));
}

TEST_F(CompletionThreadTest, Destructor_WaitsForWhatIsInFlight) {
  Start(Clock::System());
  gpu_.HoldStreams();
  thread_->Watch({.events = {Record(streams_[0])}, .done = done_.As("a")});
  Thread release("release", [this] { gpu_.ReleaseStreams(); });
  thread_.reset();
  EXPECT_THAT(done_.Await(1), ElementsAre("a OK"));
}

}  // namespace
}  // namespace penstock::gpu
