// Requests whose tensors lie in shared memory, through the engine: what is read and written, and
// what a client that changes its memory does to itself and to the others of its batch.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/strcat.h"
#include "engine_harness.h"
#include "testing/shm_object.h"

namespace penstock {
namespace {

using testing::HasSubstr;

// A FP32 [-1, 1], as WORDS BYTES [-1, 1]; both are echoed.
const ModelSignature kPairSignature{
    {{"IN", DataType::kFp32, {-1, -1}}, {"WORDS", DataType::kBytes, {-1, -1}}},
    {{"OUT", DataType::kFp32, {-1, -1}}, {"WORDS_OUT", DataType::kBytes, {-1, -1}}}};

VersionSpec PairSpec() {
  VersionSpec spec = IdentitySpec();
  spec.inputs = {{.name = "IN", .dtype = DataType::kFp32, .dims = {1}, .reshape = {}},
                 {.name = "WORDS", .dtype = DataType::kBytes, .dims = {1}, .reshape = {}}};
  spec.outputs = {
      {.name = "OUT", .dtype = DataType::kFp32, .dims = {1}, .reshape = {}, .labels = {}},
      {.name = "WORDS_OUT", .dtype = DataType::kBytes, .dims = {1}, .reshape = {}, .labels = {}}};
  return spec;
}

Engine::Options Allowed() {
  Engine::Options options;
  options.allow_client_shm = true;
  return options;
}

class SharedBatchTest : public testing::Test {
 protected:
  void Register(const ShmObject& object, const std::string& name, uint64_t size_bytes,
                uint64_t offset = 0) {
    const Status status =
        harness_.engine.shared_memory().Register(object.Region(name, size_bytes, offset));
    EXPECT_TRUE(status.ok()) << status.ToString();
  }

  // Queues the messages before the version is started: they are one batch. `before` runs between.
  std::vector<Outcome> RunTogether(
      VersionSpec spec, const ModelSignature& signature, const std::vector<InferMessage>& messages,
      const std::function<void()>& before = [] {}) {
    const auto version = harness_.Create(
        std::move(spec),
        [this](auto inputs, auto wanted, auto* outputs) {
          batch_shapes_.push_back(inputs[0].tensor.shape.ToString());
          return Echo(inputs, wanted, outputs);
        },
        signature);
    harness_.engine.SetServing("m", {version}, {});
    std::vector<RequestRef> sent;
    for (const InferMessage& message : messages) sent.push_back(harness_.Send(message));
    before();
    harness_.engine.Start(version);
    harness_.Await(messages.size());
    std::vector<Outcome> outcomes;  // in the order of the messages
    for (const RequestRef& ref : sent) {
      const InferRequest& request = AsInfer(ref);
      outcomes.push_back({request.status, "", {}, {}});
      for (const TensorView& output : request.outputs) {
        outcomes.back().outputs.push_back(TextOf(output.data));
        outcomes.back().shapes.push_back(output.shape.ToString());
      }
    }
    statistics_ = version->statistics();
    return outcomes;
  }

  static void ExpectFailed(const Outcome& outcome, StatusCode code, const std::string& text) {
    EXPECT_EQ(outcome.status.code(), code) << outcome.status.ToString();
    EXPECT_THAT(std::string(outcome.status.message()), HasSubstr(text));
  }

  EngineHarness harness_{Allowed()};
  std::vector<std::string> batch_shapes_;
  VersionStatistics statistics_;
};

TEST_F(SharedBatchTest, InputAndOutput_AreReadAndWrittenAndTheContentsAreEmpty) {
  ShmObject object("...." + RawOf<float>({1, 2}) + std::string(8, '.'));
  Register(object, "r", 16, 4);
  harness_.Serve(IdentitySpec());
  const Outcome outcome = harness_.Run(
      InferMessage().SharedInput("IN", "FP32", {1, 2}, {"r", 8}).SharedOutput("OUT", {"r", 8, 8}));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.ToString();
  EXPECT_EQ(outcome.outputs, std::vector<std::string>{""});
  EXPECT_EQ(outcome.shapes, std::vector<std::string>{"[1,2]"});
  EXPECT_EQ(object.Read(100), "...." + RawOf<float>({1, 2, 1, 2}));
}

TEST_F(SharedBatchTest, SharedAndNot_AreOneBatchInOrder) {
  ShmObject object(RawOf<float>({10, 20, 30}) + RawBytes({"ten"}));
  Register(object, "r", 19);
  const auto shared = [](int64_t offset) {
    return InferMessage()
        .SharedInput("IN", "FP32", {1, 1}, {"r", 4, offset})
        .Input("WORDS", "BYTES", {1, 1}, RawBytes({"plain"}));
  };
  const InferMessage words = InferMessage()
                                 .Input("IN", "FP32", {1, 1}, RawOf<float>({5}))
                                 .SharedInput("WORDS", "BYTES", {1, 1}, {"r", 7, 12});
  const auto outcomes = RunTogether(PairSpec(), kPairSignature, {shared(4), words, shared(8)});
  EXPECT_EQ(batch_shapes_, std::vector<std::string>{"[3,1]"});
  EXPECT_EQ(outcomes[0].outputs[0], RawOf<float>({20}));
  EXPECT_EQ(outcomes[1].outputs[0], RawOf<float>({5}));
  EXPECT_EQ(outcomes[1].outputs[1], RawBytes({"ten"}));
  EXPECT_EQ(outcomes[2].outputs[0], RawOf<float>({30}));
}

TEST_F(SharedBatchTest, RegionThatShrinksWhileQueued_FailsItsRequestAndNotTheBatch) {
  ShmObject object(RawOf<float>({1, 2}));
  Register(object, "r", 8);
  const InferMessage first = InferMessage().SharedInput("IN", "FP32", {1, 1}, {"r", 4});
  const InferMessage second = InferMessage().SharedInput("IN", "FP32", {1, 1}, {"r", 4, 4});
  const InferMessage plain = InferMessage().Row({3});
  const auto outcomes = RunTogether(IdentitySpec(), IdentitySignature(), {first, second, plain},
                                    [&] { object.Resize(6); });
  EXPECT_EQ(batch_shapes_, std::vector<std::string>{"[2,1]"});
  EXPECT_EQ(outcomes[0].outputs[0], RawOf<float>({1}));
  ExpectFailed(outcomes[1], StatusCode::kInvalidArgument,
               "input 'IN' for model 'm': shared memory region 'r' has become too small: expected "
               "4 bytes, got 2");
  EXPECT_EQ(outcomes[2].outputs[0], RawOf<float>({3}));
  EXPECT_EQ(statistics_.success.count, 2U);
  EXPECT_EQ(statistics_.failures.at(StatusCode::kInvalidArgument), 1U);
  EXPECT_EQ(statistics_.inference_count, 2U);
}

TEST_F(SharedBatchTest, WholeBatchInMemoryThatIsGone_IsNotRun) {
  ShmObject object(size_t{4});
  Register(object, "r", 4);
  const InferMessage message = InferMessage().SharedInput("IN", "FP32", {1, 1}, {"r", 4});
  const auto outcomes = RunTogether(IdentitySpec(), IdentitySignature(), {message, message},
                                    [&] { object.Resize(0); });
  EXPECT_TRUE(batch_shapes_.empty());
  for (const Outcome& outcome : outcomes) {
    ExpectFailed(outcome, StatusCode::kInvalidArgument, "expected 4 bytes, got 0");
  }
  EXPECT_EQ(statistics_.execution_count, 0U);
  EXPECT_EQ(statistics_.failures.at(StatusCode::kInvalidArgument), 2U);
}

TEST_F(SharedBatchTest, TextThatLies_FailsItsRequestWithAllItsInputs) {
  ShmObject object(RawBytes({"good"}) + RawOf<uint32_t>({0xffffffff}) + "liar");
  Register(object, "r", 16);
  const auto message = [](float number, int64_t offset) {
    return InferMessage()
        .Input("IN", "FP32", {1, 1}, RawOf<float>({number}))
        .SharedInput("WORDS", "BYTES", {1, 1}, {"r", 8, offset});
  };
  const auto outcomes =
      RunTogether(PairSpec(), kPairSignature, {message(1, 0), message(2, 8), message(3, 0)});
  EXPECT_EQ(batch_shapes_, std::vector<std::string>{"[2,1]"});
  EXPECT_EQ(outcomes[0].outputs[0], RawOf<float>({1}));
  ExpectFailed(outcomes[1], StatusCode::kInvalidArgument,
               "incomplete string data for inference input 'WORDS' for model 'm', expecting string "
               "of length 4294967295 but only 4 bytes available");
  EXPECT_EQ(outcomes[2].outputs[0], RawOf<float>({3}));
  EXPECT_EQ(outcomes[2].outputs[1], RawBytes({"good"}));
}

TEST_F(SharedBatchTest, OutputRegionThatShrinks_FailsItsRequestAndIsNotEnlarged) {
  ShmObject object(size_t{8});
  Register(object, "r", 8);
  const auto outcomes = RunTogether(
      IdentitySpec(), IdentitySignature(),
      {InferMessage().Row({1}).SharedOutput("OUT", {"r", 4}),
       InferMessage().Row({2}).SharedOutput("OUT", {"r", 4, 4}), InferMessage().Row({3})},
      [&] { object.Resize(5); });
  EXPECT_TRUE(outcomes[0].status.ok());
  ExpectFailed(outcomes[1], StatusCode::kInvalidArgument,
               "output 'OUT' of model 'm': shared memory region 'r' has become too small: expected "
               "4 bytes, got 1");
  EXPECT_EQ(outcomes[2].outputs[0], RawOf<float>({3}));
  EXPECT_EQ(object.Read(4), RawOf<float>({1}));
  EXPECT_EQ(object.size(), 5U);
}

TEST_F(SharedBatchTest, OutputLargerThanItsRoom_IsInternal) {
  ShmObject object(size_t{8});
  Register(object, "r", 8);
  harness_.Serve(IdentitySpec());
  const InferMessage row = InferMessage().Row({1, 2});
  ExpectFailed(harness_.Run(InferMessage(row).SharedOutput("OUT", {"r", 7})), StatusCode::kInternal,
               "shared memory size specified with the request for output 'OUT' (7 bytes) should be "
               "at least 8 bytes to hold the results");
  EXPECT_TRUE(harness_.Run(InferMessage(row).SharedOutput("OUT", {"r", 8})).status.ok());
  EXPECT_EQ(object.Read(8), RawOf<float>({1, 2}));
}

TEST_F(SharedBatchTest, TensorWithoutElements_NeedsNoBytes) {
  ShmObject object(size_t{4});
  Register(object, "r", 4);
  harness_.Serve(IdentitySpec());
  const Outcome outcome = harness_.Run(
      InferMessage().SharedInput("IN", "FP32", {1, 0}, {"r", 0}).SharedOutput("OUT", {"r", 0}));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.ToString();
  EXPECT_EQ(outcome.shapes[0], "[1,0]");
}

TEST_F(SharedBatchTest, UnregisteredWhileRunning_IsFinishedAndThenLetGo) {
  ShmObject object(RawOf<float>({4}) + "....");
  Register(object, "r", 8);
  Gate gate;
  harness_.Serve(IdentitySpec(), [&gate](auto inputs, auto wanted, auto* outputs) {
    gate.Pass();
    return Echo(inputs, wanted, outputs);
  });
  std::weak_ptr<const SharedRegion> region = *harness_.engine.shared_memory().Find("r");
  const InferMessage message =
      InferMessage().SharedInput("IN", "FP32", {1, 1}, {"r", 4}).SharedOutput("OUT", {"r", 4, 4});
  const RequestRef ref = harness_.Send(message);
  gate.AwaitArrived(1);
  ASSERT_TRUE(harness_.engine.shared_memory().Unregister(RegionKind::kSystem, "r").ok());
  EXPECT_FALSE(region.expired());
  harness_.Send(message);
  ExpectFailed(harness_.Await(1)[0], StatusCode::kNotFound, "Unable to find shared memory region");
  gate.Open();
  EXPECT_TRUE(harness_.Await(1)[0].status.ok());
  EXPECT_EQ(object.Read(4, 4), RawOf<float>({4}));
  EXPECT_TRUE(region.expired());  // though the request itself is still held
}

TEST_F(SharedBatchTest, CancelledWhileRunning_ItsMemoryIsNotWritten) {
  ShmObject object(std::string_view("...."));
  Register(object, "r", 4);
  Gate gate;
  harness_.Serve(IdentitySpec(), [&gate](auto inputs, auto wanted, auto* outputs) {
    gate.Pass();
    return Echo(inputs, wanted, outputs);
  });
  const RequestRef ref = harness_.Send(InferMessage().Row({1}).SharedOutput("OUT", {"r", 4}));
  gate.AwaitArrived(1);
  harness_.engine.Cancel(ref);
  gate.Open();
  EXPECT_EQ(harness_.Await(1)[0].status.code(), StatusCode::kCancelled);
  EXPECT_EQ(object.Read(4), "....");
}

// The client never rests: what is computed is some mixture, the outcome is OK or a reason, and
// nothing else is touched (the sanitizers watch).
TEST_F(SharedBatchTest, MemoryThatChangesAllTheTime_HarmsNobody) {
  ShmObject object(RawBytes({"12345678"}));
  Register(object, "r", 12);
  VersionSpec spec = PairSpec();
  harness_.Serve(spec, &Echo, kPairSignature);
  std::atomic<bool> is_over{false};
  std::thread client([&] {
    while (!is_over) {
      object.Write(RawOf<uint32_t>({0xfffffff0}));
      object.Resize(3);
      object.Resize(12);
      object.Write(RawBytes({"12345678"}));
    }
  });
  const InferMessage message = InferMessage()
                                   .Input("IN", "FP32", {1, 1}, RawOf<float>({1}))
                                   .SharedInput("WORDS", "BYTES", {1, 1}, {"r", 12})
                                   .SharedOutput("WORDS_OUT", {"r", 12});
  const InferMessage plain = InferMessage()
                                 .Input("IN", "FP32", {1, 1}, RawOf<float>({2}))
                                 .Input("WORDS", "BYTES", {1, 1}, RawBytes({"calm"}));
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 3; ++i) harness_.Send(message);
    harness_.Send(plain);
    size_t calm = 0;
    for (const Outcome& outcome : harness_.Await(4)) {
      if (!outcome.status.ok()) {
        EXPECT_EQ(outcome.status.code(), StatusCode::kInvalidArgument);
      } else if (outcome.outputs[0] == RawOf<float>({2})) {
        EXPECT_EQ(outcome.outputs[1], RawBytes({"calm"}));
        ++calm;
      }
    }
    EXPECT_EQ(calm, 1U);
  }
  is_over = true;
  client.join();
}

// What one request may have, many that wait together must not: a batch's memory is the sum.
TEST_F(SharedBatchTest, BatchOfManyBytes_IsSeveralBatches) {
  Engine::Options options = Allowed();
  options.limits.max_request_bytes = 1000;
  EngineHarness harness(std::move(options));
  std::string words(600, 'x');
  words.replace(0, 4, std::string("\x54\x02\0\0", 4));  // one element of 596
  ShmObject object(words);
  ASSERT_TRUE(harness.engine.shared_memory().Register(object.Region("r", 600)).ok());
  VersionSpec spec = PairSpec();
  spec.inputs.erase(spec.inputs.begin());
  spec.outputs.erase(spec.outputs.begin());
  std::vector<std::string> shapes;
  const auto version = harness.Create(std::move(spec),
                                      [&](auto inputs, auto wanted, auto* outputs) {
                                        shapes.push_back(inputs[0].tensor.shape.ToString());
                                        return Echo(inputs, wanted, outputs);
                                      },
                                      {{kPairSignature.inputs[1]}, {kPairSignature.outputs[1]}});
  harness.engine.SetServing("m", {version}, {});
  for (int i = 0; i < 3; ++i) {
    harness.Send(InferMessage().SharedInput("WORDS", "BYTES", {1, 1}, {"r", 600}));
  }
  harness.engine.Start(version);
  for (const Outcome& outcome : harness.Await(3)) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.ToString();
  }
  EXPECT_EQ(shapes, (std::vector<std::string>{"[1,1]", "[1,1]", "[1,1]"}));
}

TEST_F(SharedBatchTest, KeysOwnLimit_CountsWhatLiesInSharedMemory) {
  Engine::Options options = Allowed();
  options.access.needs_identity = true;
  EngineHarness harness(std::move(options));
  harness.Serve(IdentitySpec());
  ShmObject object(RawOf<float>({1, 2, 3, 4}));
  ASSERT_TRUE(harness.engine.shared_memory().Register(object.Region("r", 16)).ok());
  const std::string two = InferMessage().SharedInput("IN", "FP32", {1, 2}, {"r", 8}).bytes();
  Principal principal{"key 'k'", {}, {}, two.size() + 8};
  principal.groups.set();
  AccessControl& access = harness.engine.admission().access();
  access.SetKeys({{Sha256("k"), std::make_shared<const Principal>(principal)}});
  const Caller caller = access.Identify(std::vector<CallHeader>{{"x-api-key", "k"}}, "c");
  const auto run = [&](const std::string& bytes) {
    RequestRef ref = InferRequestPool::Shared().Get();
    AsInfer(ref).message = SpanOf(bytes);
    AsInfer(ref).completions = &harness.completions;
    harness.engine.Infer(ref, {.caller = &caller});
    return harness.Await(1)[0];
  };
  EXPECT_TRUE(run(two).status.ok());
  const std::string four = InferMessage().SharedInput("IN", "FP32", {1, 4}, {"r", 16}).bytes();
  ASSERT_EQ(four.size(), two.size());
  ExpectFailed(run(four), StatusCode::kResourceExhausted,
               StrCat("request of ", four.size(),
                      " bytes and 16 in shared memory exceeds the limit "
                      "of key 'k': ",
                      two.size() + 8, " bytes"));
}

}  // namespace
}  // namespace penstock
