// A request's way through a model that behaves, and through ones that do not.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "engine_harness.h"

namespace penstock {
namespace {

using testing::HasSubstr;

TEST(EngineRunTest, Identity_GivesEachItsOwnRow) {
  EngineHarness harness;
  harness.Serve(IdentitySpec());
  const Outcome outcome = harness.Run(InferMessage().Row({1, 2, 3}));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.ToString();
  EXPECT_EQ(outcome.outputs, std::vector<std::string>{RawOf<float>({1, 2, 3})});
  EXPECT_EQ(outcome.shapes, std::vector<std::string>{"[1,3]"});
}

TEST(EngineRunTest, Classification_ReplacesTheValues) {
  EngineHarness harness;
  VersionSpec spec = IdentitySpec();
  spec.outputs[0].labels = {"a", "b", "c"};
  harness.Serve(std::move(spec));
  const Outcome outcome = harness.Run(InferMessage().Row({1, 3, 2}).Output("OUT", {2}));
  ASSERT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.outputs[0], RawBytes({"3.000000:1:b", "2.000000:2:c"}));
  EXPECT_EQ(outcome.shapes[0], "[1,2]");
}

TEST(EngineRunTest, ThrowingModel_FailsTheBatchWithoutItsTextAndServesOn) {
  EngineHarness harness;
  std::atomic<int> runs{0};
  harness.Serve(IdentitySpec(), [&](auto inputs, auto wanted, auto* outputs) {
    if (runs.fetch_add(1) == 0) throw std::runtime_error("secret");
    if (runs == 2) throw 7;  // NOLINT: anything may come out of a plug-in
    return Echo(inputs, wanted, outputs);
  });
  for (int i = 0; i < 2; ++i) {
    const Outcome outcome = harness.Run(InferMessage().Row({1}));
    EXPECT_EQ(outcome.status.code(), StatusCode::kInternal);
    EXPECT_EQ(outcome.status.message(), "model 'm' version 1 threw while running a batch");
  }
  EXPECT_TRUE(harness.Run(InferMessage().Row({1})).status.ok());
}

TEST(EngineRunTest, FailingModel_GivesItsStatus) {
  EngineHarness harness;
  harness.Serve(IdentitySpec(),
                [](auto, auto, auto*) -> Status { return ResourceExhausted("no more"); });
  const Outcome outcome = harness.Run(InferMessage().Row({1}));
  EXPECT_EQ(outcome.status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(outcome.status.message(), "no more");
}

struct Lie {
  const char* name;
  DataType dtype;
  Shape shape;
  size_t size_bytes;
  const char* text;
};

TEST(EngineRunTest, LyingModel_IsInternalNamingTheOutput) {
  const Lie lies[] = {
      {"type", DataType::kInt32, {1, 2}, 8, "output 'OUT' came as INT32, expected FP32"},
      {"rows",
       DataType::kFp32,
       {2, 2},
       16,
       "came with shape [2,2], expected a first dimension of 1"},
      {"no rows", DataType::kFp32, {}, 4, "came with shape [], expected a first dimension of 1"},
      {"shape", DataType::kFp32, {1, 3}, 12, "came with shape [1,3], expected [1,2]"},
      {"rank", DataType::kFp32, {1, 2, 1}, 8, "came with shape [1,2,1], expected [1,2]"},
      {"open", DataType::kFp32, {1, -2}, 8, "came with shape [1,-2], expected [1,2]"},
      {"short", DataType::kFp32, {1, 2}, 7, "came with 7 bytes, which do not fit its shape [1,2]"},
      {"long", DataType::kFp32, {1, 2}, 9, "came with 9 bytes"},
  };
  for (const Lie& lie : lies) {
    EngineHarness harness;
    VersionSpec spec = IdentitySpec();
    spec.outputs[0].dims = {2};
    harness.Serve(std::move(spec), [&lie](auto, auto wanted, auto* outputs) {
      const std::vector<uint8_t> bytes(lie.size_bytes);
      outputs->push_back(MakeOutput(wanted[0], lie.dtype, lie.shape, bytes));
      return Status::Ok();
    });
    const Outcome outcome = harness.Run(InferMessage().Row({1, 2}));
    EXPECT_EQ(outcome.status.code(), StatusCode::kInternal) << lie.name;
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr(lie.text)) << lie.name;
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("model 'm' version 1"));
  }
}

TEST(EngineRunTest, ModelThatGivesTooFewOrTheWrongOutputs_IsInternal) {
  const ModelSignature signature{
      {{"IN", DataType::kFp32, {-1, -1}}},
      {{"OUT", DataType::kFp32, {-1, -1}}, {"OUT2", DataType::kFp32, {-1, -1}}}};
  VersionSpec spec = IdentitySpec();
  spec.outputs.push_back(spec.outputs[0]);
  spec.outputs[1].name = "OUT2";
  {
    EngineHarness harness;
    harness.Serve(
        spec, [](auto, auto, auto*) { return Status::Ok(); }, signature);
    EXPECT_EQ(harness.Run(InferMessage().Row({1})).status.message(),
              "model 'm' version 1 gave 0 outputs, expected 2");
  }
  EngineHarness harness;
  harness.Serve(
      spec,
      [](auto inputs, auto, auto* outputs) {
        const TensorView& in = inputs[0].tensor;
        for (const size_t index : {1, 0}) {
          outputs->push_back(MakeOutput(index, in.dtype, in.shape, in.data));
        }
        return Status::Ok();
      },
      signature);
  EXPECT_EQ(harness.Run(InferMessage().Row({1})).status.code(), StatusCode::kInternal);
}

TEST(EngineRunTest, WarmUp_RunsOnEveryInstanceAndDeliversNothing) {
  EngineHarness harness;
  std::atomic<int> runs{0};
  VersionSpec spec = IdentitySpec();
  spec.instance_count = 3;
  const auto version = harness.Create(spec, [&](auto inputs, auto wanted, auto* outputs) {
    runs.fetch_add(1);
    return Echo(inputs, wanted, outputs);
  });
  const std::string good = InferMessage().Row({1}).bytes();
  EXPECT_TRUE(version->WarmUp(SpanOf(good)).ok());
  EXPECT_EQ(runs, 3);
  const std::string bad = InferMessage().Input("X", "FP32", {1, 1}, RawOf<float>({1})).bytes();
  EXPECT_EQ(version->WarmUp(SpanOf(bad)).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(version->statistics().success.count, 0U);
}

TEST(EngineRunTest, WarmUp_OfAStartedOrDrainedVersionIsRefused) {
  EngineHarness harness;
  const auto version = harness.Serve(IdentitySpec());
  const std::string message = InferMessage().Row({1}).bytes();
  EXPECT_EQ(version->WarmUp(SpanOf(message)).code(), StatusCode::kFailedPrecondition);
  ASSERT_TRUE(harness.engine.Drain(version, kLongNs));
  EXPECT_EQ(version->WarmUp(SpanOf(message)).code(), StatusCode::kFailedPrecondition);
}

TEST(EngineRunTest, StartedTwice_ServesAsIfOnce) {
  EngineHarness harness;
  const auto version = harness.Serve(IdentitySpec());
  harness.engine.Start(version);
  EXPECT_TRUE(harness.Run(InferMessage().Row({1})).status.ok());
  EXPECT_TRUE(harness.engine.Drain(version, kLongNs));
}

}  // namespace
}  // namespace penstock
