// Decoupled models: none, one or many responses to a request, while the client takes them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "answer_harness.h"
#include "testing/fake_clock.h"

namespace penstock {
namespace {

using testing::HasSubstr;

class AnswerManyTest : public testing::Test {
 protected:
  explicit AnswerManyTest() : harness_(box_.Keeper(), AnswerHarness::Decoupled()) {}

  std::shared_ptr<ResponseSender> SendOne(const InferMessage& message = InferMessage().Row({1})) {
    sent_.push_back(harness_.Send(message));
    return box_.Await(1)[0];
  }

  SenderBox box_;
  AnswerHarness harness_;
  std::vector<RequestRef> sent_;
};

TEST_F(AnswerManyTest, ManyResponses_ThenTheEnd) {
  const auto sender = SendOne();
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(sender->Send(OneRow(1)).ok());
  sender->Finish(Status::Ok());
  const Answered& answered = harness_.Await();
  EXPECT_TRUE(answered.status.ok());
  EXPECT_EQ(answered.responses, 5U);
  EXPECT_EQ(answered.times_done, 1);
  EXPECT_EQ(harness_.engine.admission().inflight(), 0U);
}

TEST_F(AnswerManyTest, LastResponse_EndsTheRequest) {
  const auto sender = SendOne();
  EXPECT_TRUE(sender->Send(OneRow(1)).ok());
  EXPECT_TRUE(sender->SendLast(OneRow(1)).ok());
  EXPECT_EQ(sender->Send(OneRow(1)).code(), StatusCode::kFailedPrecondition);
  sender->Finish(Unavailable("too late"));
  EXPECT_TRUE(harness_.Await().status.ok());
  EXPECT_EQ(harness_.Await().responses, 2U);
  EXPECT_EQ(harness_.Await().times_done, 1);
}

TEST_F(AnswerManyTest, LastResponseThatDoesNotFit_IsAFailure) {
  const auto sender = SendOne();
  EXPECT_EQ(sender->SendLast(OneRow(1, 2)).code(), StatusCode::kInternal);
  EXPECT_EQ(harness_.Await().status.code(), StatusCode::kInternal);
  EXPECT_TRUE(AsInfer(sent_[0]).has_final_message());
}

TEST_F(AnswerManyTest, NoResponse_IsASuccess) {
  SendOne()->Finish(Status::Ok());
  EXPECT_TRUE(harness_.Await().status.ok());
  EXPECT_EQ(harness_.Await().responses, 0U);
  EXPECT_EQ(harness_.version->statistics().success.count, 1U);
}

TEST_F(AnswerManyTest, ResponsesAreTakenBeforeTheEnd) {
  const auto sender = SendOne();
  EXPECT_TRUE(sender->Send(OneRow(1)).ok());
  harness_.TakeSome();
  EXPECT_EQ(harness_.answered[0]->responses, 1U);
  EXPECT_FALSE(harness_.answered[0]->is_done);
  EXPECT_EQ(harness_.version->counters().running, 1U);
  EXPECT_EQ(harness_.version->statistics().success.count, 0U);
  sender->Finish(Status::Ok());
  EXPECT_TRUE(harness_.Await().status.ok());
}

TEST_F(AnswerManyTest, BurstIsOneEntryOfTheCompletionQueue) {
  const auto sender = SendOne();
  const auto next = SendOne();  // its batch runs, so that of the other request is over
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(sender->Send(OneRow(1)).ok());
  sender->Finish(Status::Ok());
  std::vector<RequestRef> taken;
  harness_.completions.Take(&taken);
  ASSERT_EQ(taken.size(), 1U);
  std::vector<ResponseBlock> blocks;
  EXPECT_TRUE(AsInfer(taken[0]).Take(&blocks));
  ASSERT_EQ(blocks.size(), 2U);  // a first one, small as most of them are, and a large one
  EXPECT_EQ(blocks[0].count + blocks[1].count, 50U);
  size_t messages = 0;
  for (const ResponseBlock& block : blocks) messages += MessagesOf(block).size();
  EXPECT_EQ(messages, 50U);
  harness_.engine.Release(AsInfer(taken[0]));
  next->Finish(Status::Ok());
  harness_.Await(1);
}

TEST_F(AnswerManyTest, LargeResponses_GetBlocksOfTheirOwnInOrder) {
  const auto sender = SendOne();
  const std::vector<float> large(20'000, 1.0F);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(sender->Send(OneRow(1)).ok());
    std::vector<BatchOutput> outputs;
    outputs.push_back(MakeOutput(0, DataType::kFp32, {1, 20'000},
                                 {reinterpret_cast<const uint8_t*>(large.data()), 80'000}));
    EXPECT_TRUE(sender->Send(std::move(outputs)).ok());
  }
  std::vector<ResponseBlock> blocks;
  EXPECT_FALSE(AsInfer(sent_[0]).Take(&blocks));
  ASSERT_EQ(blocks.size(), 6U);
  for (size_t i = 0; i < blocks.size(); ++i) EXPECT_EQ(blocks[i].size_bytes > 80'000, i % 2 == 1);
  sender->Finish(Status::Ok());
  harness_.Await();
}

TEST_F(AnswerManyTest, FailureAfterSomeResponses_IsTheOutcome) {
  const auto sender = SendOne();
  EXPECT_TRUE(sender->Send(OneRow(1)).ok());
  sender->Finish(Unavailable("out of tokens"));
  EXPECT_EQ(harness_.Await().status.message(), "out of tokens");
  EXPECT_EQ(harness_.Await().responses, 1U);
  EXPECT_EQ(harness_.version->statistics().fail.count, 1U);
}

TEST_F(AnswerManyTest, WrongOutput_FailsTheRequestAtOnce) {
  const auto sender = SendOne();
  EXPECT_TRUE(sender->Send(OneRow(1)).ok());
  EXPECT_EQ(sender->Send(OneRow(1, 2)).code(), StatusCode::kInternal);
  EXPECT_TRUE(sender->is_cancelled());
  EXPECT_THAT(std::string(harness_.Await().status.message()), HasSubstr("output 'OUT'"));
  EXPECT_FALSE(sender->Send(OneRow(1)).ok());
  sender->Finish(Status::Ok());
  EXPECT_EQ(harness_.Await().times_done, 1);
}

TEST_F(AnswerManyTest, OutputsMayBeLeftOutOfAResponse) {
  const auto sender = SendOne();
  EXPECT_TRUE(sender->Send({}).ok());
  sender->Finish(Status::Ok());
  EXPECT_TRUE(harness_.Await().status.ok());
  EXPECT_EQ(harness_.Await().responses, 1U);
}

TEST_F(AnswerManyTest, UnaryRequest_IsRefusedUnimplemented) {
  harness_.Send(InferMessage().Row({1}), /*is_stream=*/false);
  EXPECT_EQ(harness_.Await().status.code(), StatusCode::kUnimplemented);
  EXPECT_EQ(harness_.Await().status.message(),
            "ModelInfer RPC doesn't support models with decoupled transaction policy");
}

TEST_F(AnswerManyTest, InstanceIsFreeWhileSendersAreKept) {
  const auto first = SendOne();
  const auto second = SendOne();
  second->Finish(Status::Ok());
  EXPECT_TRUE(harness_.Await(1).status.ok());
  EXPECT_FALSE(harness_.answered[0]->is_done);
  first->Finish(Status::Ok());
  EXPECT_TRUE(harness_.Await(0).status.ok());
}

TEST_F(AnswerManyTest, InstanceIsBusyWhileItsRequestsAreKept) {
  EXPECT_EQ(harness_.version->instance_counts().busy, 0U);
  const auto first = SendOne();
  const auto second = SendOne();
  EXPECT_EQ(harness_.version->instance_counts().busy, 1U);
  first->Finish(Status::Ok());
  EXPECT_TRUE(harness_.Await(0).status.ok());
  EXPECT_EQ(harness_.version->instance_counts().busy, 1U);
  second->Finish(Status::Ok());
  EXPECT_TRUE(harness_.Await(1).status.ok());
  harness_.version->Drain(kNever / 2);  // the request leaves the kept ones behind its outcome
  EXPECT_EQ(harness_.version->instance_counts().busy, 0U);
}

TEST_F(AnswerManyTest, RoomCountsDown_AndIsToldWhenTheClientTakes) {
  const auto sender = SendOne();
  EXPECT_EQ(sender->room(), ResponseChannel::kMaxUntaken);
  int told = 0;
  sender->NotifyRoom([&] { ++told; });
  EXPECT_EQ(told, 1);  // there is room already
  while (sender->room() > 0) ASSERT_TRUE(sender->Send(OneRow(1)).ok());
  sender->NotifyRoom([&] { told += 10; });
  sender->NotifyRoom([&] { told += 100; });  // replaces it
  EXPECT_EQ(told, 1);
  harness_.TakeSome();
  EXPECT_EQ(told, 101);
  EXPECT_EQ(sender->room(), ResponseChannel::kMaxUntaken);
  EXPECT_EQ(harness_.answered[0]->responses, ResponseChannel::kMaxUntaken);
  sender->Finish(Status::Ok());
  harness_.Await();
}

TEST_F(AnswerManyTest, BytesTakeRoomToo) {
  const auto sender = SendOne();
  const std::vector<uint8_t> large(ResponseChannel::kMaxUntakenBytes + 4);
  std::vector<BatchOutput> outputs;
  outputs.push_back(MakeOutput(0, DataType::kFp32,
                               {1, static_cast<int64_t>(large.size() / sizeof(float))}, large));
  EXPECT_TRUE(sender->Send(std::move(outputs)).ok());
  EXPECT_EQ(sender->room(), 0U);
  harness_.TakeSome();
  EXPECT_EQ(sender->room(), ResponseChannel::kMaxUntaken);
  sender->Finish(Status::Ok());
  harness_.Await();
}

TEST_F(AnswerManyTest, ModelThatIgnoresItsRoom_FailsItsRequest) {
  const auto sender = SendOne();
  size_t sent = 0;
  Status status;
  while ((status = sender->Send(OneRow(1))).ok()) ++sent;
  EXPECT_EQ(sent, ResponseChannel::kOverrun * ResponseChannel::kMaxUntaken);
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(harness_.Await().status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(harness_.Await().status.message()),
              HasSubstr("model 'm' version 1 sent on without room: 256 responses"));
}

TEST_F(AnswerManyTest, ResponseOverTheTransportsLimit_FailsItsRequest) {
  const auto sender = SendOne();
  AsInfer(sent_[0]).max_response_bytes = 8;
  EXPECT_EQ(sender->Send(OneRow(1)).code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(harness_.Await().status.message()),
              HasSubstr("Sent message larger than max"));
}

TEST_F(AnswerManyTest, Cancel_TellsTheModelAtOnce) {
  const auto sender = SendOne();
  while (sender->room() > 0) ASSERT_TRUE(sender->Send(OneRow(1)).ok());
  bool told = false;
  sender->NotifyRoom([&] { told = true; });
  EXPECT_FALSE(told);
  harness_.engine.Cancel(sent_[0]);
  EXPECT_TRUE(told);
  EXPECT_TRUE(sender->is_cancelled());
  EXPECT_EQ(sender->Send(OneRow(1)).code(), StatusCode::kCancelled);
  sender->Finish(Status::Ok());
  EXPECT_EQ(harness_.Await().status.code(), StatusCode::kCancelled);
}

TEST_F(AnswerManyTest, Drain_WaitsForKeptRequests) {
  const auto sender = SendOne();
  harness_.engine.Forget("m");
  std::thread drainer([&] { EXPECT_TRUE(harness_.engine.Drain(harness_.version, kLongNs)); });
  EXPECT_TRUE(sender->Send(OneRow(1)).ok());
  sender->Finish(Status::Ok());
  drainer.join();
  EXPECT_TRUE(harness_.Await().status.ok());
}

TEST_F(AnswerManyTest, DrainOutOfTime_FailsKeptRequestsAndEnds) {
  const auto sender = SendOne();
  bool told = false;
  while (sender->room() > 0) ASSERT_TRUE(sender->Send(OneRow(1)).ok());
  sender->NotifyRoom([&] { told = true; });
  while (!harness_.engine.Drain(harness_.version, 1'000'000)) {
  }
  EXPECT_TRUE(told);
  EXPECT_EQ(harness_.Await().status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(harness_.Await().status.message(), "model 'm' version 1 was unloaded");
  EXPECT_EQ(sender->Send(OneRow(1)).code(), StatusCode::kCancelled);
}

TEST(KeptSenderTest, KeptBeyondTheEngine_IsHarmless) {
  SenderBox box;
  auto harness = std::make_unique<AnswerHarness>(box.Keeper(), AnswerHarness::Decoupled());
  harness->Send(InferMessage().Row({1}));
  const auto sender = box.Await(1)[0];
  while (!harness->engine.Shutdown(1'000'000)) {
  }
  EXPECT_EQ(harness->Await().status.code(), StatusCode::kUnavailable);
  harness.reset();
  EXPECT_EQ(sender->Send(OneRow(1)).code(), StatusCode::kCancelled);
  EXPECT_TRUE(sender->is_cancelled());
  sender->Finish(Status::Ok());
}

TEST(DecoupledVersionTest, BackendThatAnswersBatches_IsRefusedByName) {
  EngineHarness harness;
  const auto version = harness.engine.CreateVersion(MakeModel(), AnswerHarness::Decoupled());
  EXPECT_EQ(version.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(version.status().message()),
              HasSubstr("model_transaction_policy.decoupled is not supported by its backend"));
}

TEST(DecoupledVersionTest, PreserveOrdering_IsRefusedByName) {
  FakeModelSpec model{IdentitySignature(), &Echo};
  model.answer = [](auto, auto) { return Status::Ok(); };
  VersionSpec spec = AnswerHarness::Decoupled();
  spec.preserves_ordering = true;
  EngineHarness harness;
  const auto version =
      harness.engine.CreateVersion(std::make_shared<FakeModel>(std::move(model)), spec);
  EXPECT_THAT(std::string(version.status().message()), HasSubstr("preserve_ordering"));
}

TEST(DecoupledVersionTest, WarmUp_ChecksResponsesAndWaitsForTheEnd) {
  std::thread finisher;
  FakeModelSpec model{IdentitySignature(), &Echo};
  model.answer = [&](auto, std::span<const BatchRequest> requests) {
    finisher = std::thread([sender = requests[0].responses] {
      for (int i = 0; i < 1000; ++i) EXPECT_TRUE(sender->Send(OneRow(1)).ok());
      sender->Finish(Unavailable("not today"));
    });
    return Status::Ok();
  };
  EngineHarness harness;
  const auto version = *harness.engine.CreateVersion(std::make_shared<FakeModel>(std::move(model)),
                                                     AnswerHarness::Decoupled());
  EXPECT_EQ(version->WarmUp(SpanOf(InferMessage().Row({1}).bytes())).message(), "not today");
  finisher.join();
}

}  // namespace
}  // namespace penstock
