// Which version answers, and what is said when none does.

#include <gtest/gtest.h>

#include "engine_harness.h"

namespace penstock {
namespace {

InferMessage Ask(std::string_view version, std::string_view model = "m") {
  return InferMessage(model, version).Row({1});
}

class EngineLookupTest : public testing::Test {
 protected:
  std::shared_ptr<ModelVersion> Started(int64_t version) {
    auto created = harness_.Create(IdentitySpec(version));
    harness_.engine.Start(created);
    return created;
  }
  void ExpectRefused(const InferMessage& message, StatusCode code, std::string_view text) {
    const Outcome outcome = harness_.Run(message);
    EXPECT_EQ(outcome.status.code(), code);
    EXPECT_EQ(outcome.status.message(), text);
  }

  EngineHarness harness_;
};

TEST_F(EngineLookupTest, NoVersion_GetsTheGreatest) {
  harness_.engine.SetServing("m", {Started(2), Started(10), Started(3)}, {});
  EXPECT_EQ(harness_.Run(Ask("")).model_version, "10");
  EXPECT_EQ(harness_.Run(Ask("2")).model_version, "2");
}

TEST_F(EngineLookupTest, UnknownModel_IsNotFound) {
  ExpectRefused(Ask("", "nobody"), StatusCode::kNotFound,
                "Request for unknown model: 'nobody' is not found");
}

TEST_F(EngineLookupTest, UnknownVersion_IsNotFound) {
  harness_.engine.SetServing("m", {Started(1)}, {});
  ExpectRefused(Ask("99"), StatusCode::kNotFound,
                "Request for unknown model: 'm' version 99 is not found");
}

TEST_F(EngineLookupTest, ModelWithoutVersions_HasNoneAvailable) {
  harness_.engine.SetServing("m", {}, {4});
  ExpectRefused(Ask(""), StatusCode::kNotFound,
                "Request for unknown model: 'm' has no available versions");
  ExpectRefused(Ask("4"), StatusCode::kUnavailable, "'m' version 4 is not at ready state");
}

TEST_F(EngineLookupTest, VersionThatIsNoNumber_IsInvalid) {
  harness_.engine.SetServing("m", {Started(1)}, {});
  EXPECT_EQ(harness_.Run(Ask("one")).status.code(), StatusCode::kInvalidArgument);
}

TEST_F(EngineLookupTest, ForgottenModel_IsUnknown) {
  harness_.engine.SetServing("m", {Started(1)}, {});
  harness_.engine.Forget("m");
  harness_.engine.Forget("m");
  ExpectRefused(Ask(""), StatusCode::kNotFound, "Request for unknown model: 'm' is not found");
}

TEST_F(EngineLookupTest, DrainedVersionStillInTheTable_IsNotReady) {
  const auto version = Started(1);
  harness_.engine.SetServing("m", {version}, {});
  ASSERT_TRUE(harness_.engine.Drain(version, kLongNs));
  ExpectRefused(Ask(""), StatusCode::kUnavailable, "'m' is not at ready state");
}

TEST_F(EngineLookupTest, GarbageAndOversizedMessages_AreOutcomesToo) {
  EngineHarness harness({.backend_directories = {}, .limits = {.max_request_bytes = 4}});
  EXPECT_EQ(harness.Run(Ask("")).status.code(), StatusCode::kResourceExhausted);
  const RequestRef ref = InferRequestPool::Shared().Get();
  AsInfer(ref).message = SpanOf("\xff\xff");
  AsInfer(ref).completions = &harness_.completions;
  harness_.engine.Infer(ref);
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kInvalidArgument);
}

TEST_F(EngineLookupTest, UnknownBackend_IsNotFoundAndARegisteredOneLoads) {
  EXPECT_EQ(harness_.engine.LoadModel("nothing", {}).status().code(), StatusCode::kNotFound);
  harness_.engine.backends().Register(
      "fake", std::make_unique<FakeBackend>(FakeModelSpec{IdentitySignature(), &Echo}));
  const auto model = harness_.engine.LoadModel("fake", {});
  ASSERT_TRUE(model.ok());
  EXPECT_EQ((*model)->signature().inputs[0].name, "IN");
}

}  // namespace
}  // namespace penstock
