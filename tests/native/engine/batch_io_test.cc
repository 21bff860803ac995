// Gather and scatter, seen from the backend: what it is given and what each request gets of it.

#include <gtest/gtest.h>

#include <map>

#include "engine_harness.h"

namespace penstock {
namespace {

// Runs several requests as one batch: they are queued before the version is started.
class BatchIoTest : public testing::Test {
 protected:
  std::vector<Outcome> RunTogether(VersionSpec spec, const ModelSignature& signature,
                                   const std::vector<InferMessage>& messages,
                                   FakeModelSpec::Execute execute = &Echo) {
    const std::string name = spec.model_name;
    const auto version = harness_.Create(
        std::move(spec),
        [this, execute](auto inputs, auto wanted, auto* outputs) {
          batches_ += 1;
          for (const BatchInput& input : inputs) {
            shapes_[input.index] = input.tensor.shape.ToString();
            bytes_[input.index] = TextOf(input.tensor.data);
          }
          wanted_.assign(wanted.begin(), wanted.end());
          return execute(inputs, wanted, outputs);
        },
        signature);
    harness_.engine.SetServing(name, {version}, {});
    for (const InferMessage& message : messages) harness_.Send(message);
    harness_.engine.Start(version);
    return harness_.Await(messages.size());
  }

  EngineHarness harness_;
  int batches_ = 0;
  std::map<size_t, std::string> shapes_;
  std::map<size_t, std::string> bytes_;
  std::vector<size_t> wanted_;
};

InferMessage Rows(const std::vector<float>& values, int64_t rows) {
  return InferMessage().Input("IN", "FP32", {rows, static_cast<int64_t>(values.size()) / rows},
                              RawOf(values));
}

TEST_F(BatchIoTest, SeveralRequests_AreGatheredAndCutByRows) {
  const auto outcomes = RunTogether(IdentitySpec(), IdentitySignature(),
                                    {Rows({1, 2}, 1), Rows({3, 4, 5, 6}, 2), Rows({7, 8}, 1)});
  EXPECT_EQ(batches_, 1);
  EXPECT_EQ(shapes_[0], "[4,2]");
  EXPECT_EQ(bytes_[0], RawOf<float>({1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(outcomes[1].outputs[0], RawOf<float>({3, 4, 5, 6}));
  EXPECT_EQ(outcomes[1].shapes[0], "[2,2]");
  EXPECT_EQ(outcomes[2].outputs[0], RawOf<float>({7, 8}));
}

TEST_F(BatchIoTest, OtherShapes_AreOtherBatches) {
  const auto outcomes = RunTogether(IdentitySpec(), IdentitySignature(),
                                    {Rows({1, 2}, 1), Rows({3}, 1), Rows({4, 5}, 1)});
  EXPECT_EQ(batches_, 2);
  std::map<std::string, int> seen;
  for (const Outcome& outcome : outcomes) seen[outcome.outputs[0]] += 1;
  EXPECT_EQ(seen.size(), 3U);
}

TEST_F(BatchIoTest, ZeroSizeTensors_ComeBackEmpty) {
  const InferMessage empty = InferMessage().Input("IN", "FP32", {1, 0}, "");
  const auto outcomes = RunTogether(IdentitySpec(), IdentitySignature(), {empty, empty});
  EXPECT_EQ(shapes_[0], "[2,0]");
  EXPECT_TRUE(outcomes[0].status.ok());
  EXPECT_EQ(outcomes[0].outputs[0], "");
  EXPECT_EQ(outcomes[0].shapes[0], "[1,0]");
}

TEST_F(BatchIoTest, Text_IsCutByItsLengthPrefixes) {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0] = {.name = "IN", .dtype = DataType::kBytes, .dims = {2}, .reshape = {}};
  spec.outputs[0].dtype = DataType::kBytes;
  spec.outputs[0].dims = {2};
  const ModelSignature signature{{{"IN", DataType::kBytes, {-1, 2}}},
                                 {{"OUT", DataType::kBytes, {-1, 2}}}};
  const std::string first = RawBytes({"a", ""});
  const std::string rest = RawBytes({"long text", "b", "", std::string(300, 'c')});
  const auto outcomes = RunTogether(spec, signature,
                                    {InferMessage().Input("IN", "BYTES", {1, 2}, first),
                                     InferMessage().Input("IN", "BYTES", {2, 2}, rest)});
  EXPECT_EQ(batches_, 1);
  EXPECT_EQ(outcomes[0].outputs[0], first);
  EXPECT_EQ(outcomes[1].outputs[0], rest);
  EXPECT_EQ(outcomes[1].shapes[0], "[2,2]");
}

TEST_F(BatchIoTest, TextThatLies_IsInternal) {
  VersionSpec spec = IdentitySpec();
  spec.outputs[0].dtype = DataType::kBytes;
  const ModelSignature signature{{{"IN", DataType::kFp32, {-1, -1}}},
                                 {{"OUT", DataType::kBytes, {-1, -1}}}};
  for (const std::string& bytes :
       {std::string("\xff\xff\xff\xff"), RawBytes({"x"}) + "y", std::string("\0\0", 2)}) {
    EngineHarness harness;
    harness.Serve(
        spec,
        [&bytes](auto, auto wanted, auto* outputs) {
          outputs->push_back(MakeOutput(wanted[0], DataType::kBytes, {1, 1}, SpanOf(bytes)));
          return Status::Ok();
        },
        signature);
    EXPECT_EQ(harness.Run(InferMessage().Row({1})).status.code(), StatusCode::kInternal);
  }
}

TEST_F(BatchIoTest, Reshape_IsWhatTheModelSeesAndUndoneForTheClient) {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0].dims = {2, -1};
  spec.inputs[0].reshape = Shape{1, 2, -1};
  spec.outputs[0].dims = {-1, 2};
  spec.outputs[0].reshape = Shape{1, 2, -1};
  const ModelSignature signature{{{"IN", DataType::kFp32, {-1, 1, 2, -1}}},
                                 {{"OUT", DataType::kFp32, {-1, 1, 2, -1}}}};
  const auto message =
      InferMessage().Input("IN", "FP32", {1, 2, 3}, RawOf<float>({1, 2, 3, 4, 5, 6}));
  const auto outcomes = RunTogether(spec, signature, {message, message});
  EXPECT_EQ(shapes_[0], "[2,1,2,3]");
  EXPECT_EQ(outcomes[0].shapes[0], "[1,3,2]");
}

TEST_F(BatchIoTest, ReshapeToNothing_LeavesTheBatchDimension) {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0].dims = {1};
  spec.inputs[0].reshape = Shape();
  spec.outputs[0].dims = {1};
  spec.outputs[0].reshape = Shape();
  const ModelSignature signature = IdentitySignature({-1});
  const auto outcomes = RunTogether(spec, signature, {Rows({1}, 1), Rows({2}, 1)});
  EXPECT_EQ(shapes_[0], "[2]");
  EXPECT_EQ(outcomes[1].shapes[0], "[1,1]");
  EXPECT_EQ(outcomes[1].outputs[0], RawOf<float>({2}));
}

TEST_F(BatchIoTest, OptionalInputLeftOut_IsAbsentAndBatchesWithItsLike) {
  VersionSpec spec = IdentitySpec();
  spec.inputs[0].dims = {1};
  spec.inputs.push_back(
      {.name = "MORE", .dtype = DataType::kFp32, .dims = {1}, .reshape = {}, .is_optional = true});
  spec.outputs[0].dims = {1};
  const ModelSignature signature{
      {{"IN", DataType::kFp32, {-1, 1}}, {"MORE", DataType::kFp32, {-1, 1}, true}},
      {{"OUT", DataType::kFp32, {-1, 1}}}};
  const auto with = Rows({1}, 1).Input("MORE", "FP32", {1, 1}, RawOf<float>({9}));
  const auto outcomes = RunTogether(spec, signature, {with, Rows({2}, 1), Rows({3}, 1)});
  EXPECT_EQ(batches_, 2);
  EXPECT_EQ(shapes_[1], "[1,1]");  // only the batch that had it
  for (const Outcome& outcome : outcomes) EXPECT_TRUE(outcome.status.ok());
}

TEST_F(BatchIoTest, Outputs_OnlyWhatSomeoneWantsIsComputed) {
  const ModelSignature signature{
      {{"A", DataType::kFp32, {-1, 1}}, {"B", DataType::kFp32, {-1, 1}}},
      {{"A2", DataType::kFp32, {-1, 1}}, {"B2", DataType::kFp32, {-1, 1}}}};
  VersionSpec spec = IdentitySpec();
  spec.inputs = {{.name = "A", .dtype = DataType::kFp32, .dims = {1}, .reshape = {}},
                 {.name = "B", .dtype = DataType::kFp32, .dims = {1}, .reshape = {}}};
  spec.outputs = {
      {.name = "A2", .dtype = DataType::kFp32, .dims = {1}, .reshape = {}, .labels = {}},
      {.name = "B2", .dtype = DataType::kFp32, .dims = {1}, .reshape = {}, .labels = {}}};
  const InferMessage both = InferMessage()
                                .Input("A", "FP32", {1, 1}, RawOf<float>({1}))
                                .Input("B", "FP32", {1, 1}, RawOf<float>({2}));
  const auto one = RunTogether(spec, signature, {InferMessage(both).Output("B2")});
  EXPECT_EQ(wanted_, std::vector<size_t>{1});
  EXPECT_EQ(one[0].outputs, std::vector<std::string>{RawOf<float>({2})});
  const auto all = RunTogether(spec, signature, {both, InferMessage(both).Output("A2")});
  EXPECT_EQ(wanted_, (std::vector<size_t>{0, 1}));
  EXPECT_EQ(all[0].outputs.size(), 2U);
  EXPECT_EQ(all[1].outputs, std::vector<std::string>{RawOf<float>({1})});
}

TEST_F(BatchIoTest, WithoutBatchDimension_ShapesPassAsTheyAre) {
  VersionSpec spec = IdentitySpec();
  spec.max_batch_size = 0;
  const auto message = InferMessage().Input("IN", "FP32", {3}, RawOf<float>({1, 2, 3}));
  const auto outcomes = RunTogether(spec, IdentitySignature({-1}), {message, message});
  EXPECT_EQ(batches_, 2);
  EXPECT_EQ(shapes_[0], "[3]");
  EXPECT_EQ(outcomes[1].shapes[0], "[3]");
}

TEST_F(BatchIoTest, InputsOfALoneRequest_AreAlignedToTheirElements) {
  bool is_aligned = true;
  const auto execute = [&](auto inputs, auto wanted, auto* outputs) {
    const auto address = reinterpret_cast<uintptr_t>(inputs[0].tensor.data.data());
    is_aligned = is_aligned && address % sizeof(float) == 0;
    return Echo(inputs, wanted, outputs);
  };
  harness_.Serve(IdentitySpec(), execute);
  for (size_t length = 0; length < 8; ++length) {  // moves the contents by one byte each time
    const Outcome outcome = harness_.Run(InferMessage().Id(std::string(length, 'i')).Row({1, 2}));
    EXPECT_EQ(outcome.outputs[0], RawOf<float>({1, 2}));
  }
  EXPECT_TRUE(is_aligned);
}

}  // namespace
}  // namespace penstock
