#include "engine/admission.h"

#include <gtest/gtest.h>

#include <thread>

#include "testing/fake_clock.h"

namespace penstock {
namespace {

TEST(AdmissionTest, NoLimits_LetsAllIn) {
  Admission admission({});
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(admission.Admit(nullptr, CallGroup::kInference, SIZE_MAX).ok());
  }
  EXPECT_EQ(admission.inflight(), 1000U);
}

TEST(AdmissionTest, InflightLimit_RefusesInferenceOnly) {
  Admission admission({.max_inflight_requests = 1});
  ASSERT_TRUE(admission.Admit(nullptr, CallGroup::kInference, 0).ok());
  EXPECT_EQ(admission.Admit(nullptr, CallGroup::kInference, 0).code(), StatusCode::kUnavailable);
  EXPECT_TRUE(admission.Admit(nullptr, CallGroup::kModelRepository, 0).ok());
  EXPECT_TRUE(admission.Admit(nullptr, CallGroup::kHealth, 0).ok());
  EXPECT_EQ(admission.inflight(), 1U);
  EXPECT_EQ(admission.refused(Refusal::kBusy), 1U);
  admission.Release();
  EXPECT_TRUE(admission.Admit(nullptr, CallGroup::kInference, 0).ok());
  EXPECT_EQ(admission.admitted(), 2U);
}

TEST(AdmissionTest, SizeLimit_HoldsForEveryGroup) {
  Admission admission({.max_request_bytes = 10});
  for (const CallGroup group :
       {CallGroup::kInference, CallGroup::kModelRepository, CallGroup::kHealth}) {
    EXPECT_TRUE(admission.Admit(nullptr, group, 10).ok());
    const Status status = admission.Admit(nullptr, group, 11);
    EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
    EXPECT_EQ(status.message(), "request of 11 bytes exceeds the limit of 10 bytes");
  }
  EXPECT_EQ(admission.refused(Refusal::kSize), 3U);
  EXPECT_EQ(admission.inflight(), 1U);
}

TEST(AdmissionTest, BackgroundRequests_HaveHalfOfThePlacesInFlight) {
  Admission admission({.max_inflight_requests = 4});
  ASSERT_TRUE(admission.TakeBackgroundPlace(1).ok());
  ASSERT_TRUE(admission.TakeBackgroundPlace(1).ok());
  const Status status = admission.TakeBackgroundPlace(1);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(status.message(),
            "the server is busy: 2 background requests are in flight, which is their share");
  EXPECT_EQ(admission.refused(Refusal::kBusy), 1U);
  admission.ReleaseBackground(1);
  EXPECT_TRUE(admission.TakeBackgroundPlace(1).ok());
}

TEST(AdmissionTest, BackgroundRequests_NeverHaveTheOnlyPlaceInFlight) {
  Admission admission({.max_inflight_requests = 1});
  const Status status = admission.TakeBackgroundPlace(1);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(status.message(),
            "the server is busy: 0 background requests are in flight, which is their share");
  Admission other({.max_inflight_requests = 2});
  EXPECT_TRUE(other.TakeBackgroundPlace(1).ok());
  EXPECT_FALSE(other.TakeBackgroundPlace(1).ok());
}

TEST(AdmissionTest, BackgroundRequests_HaveAShareOfTheBytesButOneMayBeOfAnySize) {
  Admission admission({.max_background_bytes = 100});
  ASSERT_TRUE(admission.TakeBackgroundPlace(101).ok());
  const Status status = admission.TakeBackgroundPlace(7);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(status.message(),
            "the server is busy: background requests hold 101 bytes, and this one has 7: their "
            "share is 100");
  admission.ReleaseBackground(101);
  EXPECT_TRUE(admission.TakeBackgroundPlace(60).ok());
  EXPECT_TRUE(admission.TakeBackgroundPlace(40).ok());
  EXPECT_FALSE(admission.TakeBackgroundPlace(1).ok());
}

TEST(AdmissionTest, BackgroundRequests_WithoutLimitsAllStay) {
  Admission admission({});
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(admission.TakeBackgroundPlace(1 << 20).ok());
}

TEST(AdmissionTest, StopAccepting_RefusesNewInference) {
  Admission admission({});
  ASSERT_TRUE(admission.Admit(nullptr, CallGroup::kInference, 0).ok());
  admission.StopAccepting();
  const Status status = admission.Admit(nullptr, CallGroup::kInference, 0);
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(status.message(),
            "GRPC server is shutting down and has stopped accepting new requests.");
  EXPECT_TRUE(admission.Admit(nullptr, CallGroup::kHealth, 0).ok());
  EXPECT_EQ(admission.inflight(), 1U);
  EXPECT_EQ(admission.refused(Refusal::kDraining), 1U);
}

TEST(AdmissionTest, WaitIdle_ReturnsAtTheLastRelease) {
  FakeClock clock;
  Admission admission({});
  ASSERT_TRUE(admission.Admit(nullptr, CallGroup::kInference, 0).ok());
  bool is_idle = false;
  std::thread waiter([&] { is_idle = admission.WaitIdle(clock, kNever); });
  clock.AwaitWaiters(1);
  admission.Release();
  waiter.join();
  EXPECT_TRUE(is_idle);
}

TEST(AdmissionTest, WaitIdle_GivesUpAtItsDeadline) {
  FakeClock clock;
  Admission admission({});
  ASSERT_TRUE(admission.Admit(nullptr, CallGroup::kInference, 0).ok());
  bool is_idle = true;
  std::thread waiter([&] { is_idle = admission.WaitIdle(clock, clock.NowNs() + 10); });
  clock.AwaitWaiters(1);
  clock.Advance(10);
  waiter.join();
  EXPECT_FALSE(is_idle);
  EXPECT_TRUE(Admission({}).WaitIdle(clock, 0));
}

}  // namespace
}  // namespace penstock
