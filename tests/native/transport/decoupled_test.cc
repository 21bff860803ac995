// Decoupled models on the native transport: interleaving, flags, back-pressure, cancellation.

#include <gmock/gmock.h>

#include <vector>

#include "engine/answer_harness.h"
#include "transport_harness.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::SizeIs;

class DecoupledTest : public testing::Test {
 protected:
  explicit DecoupledTest(const TransportOptions& options = {}) : harness_(options) {
    FakeModelSpec model{IdentitySignature(), &Echo};
    model.answer = box_.Keeper();
    version_ = *harness_.models.engine.CreateVersion(std::make_shared<FakeModel>(std::move(model)),
                                                     AnswerHarness::Decoupled());
    harness_.models.engine.Start(version_);
    harness_.models.engine.SetServing("m", {version_}, {});
  }

  // The sender of the request that is on its way.
  std::shared_ptr<ResponseSender> Arrived() {
    harness_.Settle();
    return box_.Await(1)[0];
  }
  void SendWhileThereIsRoom(ResponseSender& sender) {
    while (sender.room() > 0) ASSERT_TRUE(sender.Send(OneRow(1)).ok());
  }

  SenderBox box_;
  TransportHarness harness_;
  std::shared_ptr<ModelVersion> version_;
};

std::string Request(std::string_view id, bool wants_final = false) {
  InferMessage message;
  message.Id(id).Row({1});
  if (wants_final) message.Parameter("triton_enable_empty_final_response", 1, 1);
  return Framed(message.bytes());
}

// What the reply says of triton_final_response: its value is the last byte of the entry.
bool IsFinal(const std::string& reply) {
  const std::string key = "triton_final_response";
  const size_t at = reply.find(key);
  EXPECT_NE(at, std::string::npos);
  return reply[at + key.size() + 3] == 1;
}

TEST_F(DecoupledTest, ResponsesInterleaveAndNoneIsFinal) {
  Http2Client& client = harness_.Connect();
  const int32_t id = client.Call(kStreamInfer, Request("first") + Request("second"));
  harness_.Settle();
  const Senders senders = box_.Await(2);
  for (int i = 0; i < 2; ++i) {
    for (const size_t of : {1U, 0U}) {
      EXPECT_TRUE(senders[of]->Send(OneRow(static_cast<float>(i))).ok());
      harness_.Settle();
    }
  }
  for (const auto& sender : senders) sender->Finish(Status::Ok());
  const auto& response = harness_.Await(client, id);
  EXPECT_EQ(response.status(), "0");
  const std::vector<std::string> replies = Unframed(response.body);
  EXPECT_THAT(replies, ElementsAre(HasSubstr("second"), HasSubstr("first"), HasSubstr("second"),
                                   HasSubstr("first")));
  for (const std::string& reply : replies) EXPECT_FALSE(IsFinal(reply));
  EXPECT_THAT(replies[0], EndsWith(RawOf<float>({0})));
  EXPECT_THAT(replies[3], EndsWith(RawOf<float>({1})));
}

TEST_F(DecoupledTest, EmptyFinalResponse_OnlyWhereItIsAskedFor) {
  for (const bool asks : {false, true}) {
    Http2Client& client = harness_.Connect();
    const int32_t id = client.Call(kStreamInfer, Request("a", asks));
    const auto sender = Arrived();
    EXPECT_TRUE(sender->Send(OneRow(1)).ok());
    sender->Finish(Status::Ok());
    const std::vector<std::string> replies = Unframed(harness_.Await(client, id).body);
    ASSERT_THAT(replies, SizeIs(asks ? 2 : 1));
    EXPECT_FALSE(IsFinal(replies.front()));
    EXPECT_EQ(IsFinal(replies.back()), asks);
  }
}

TEST_F(DecoupledTest, LastResponseSaysSoItself_AndNothingFollows) {
  for (const bool asks : {false, true}) {
    Http2Client& client = harness_.Connect();
    const int32_t id = client.Call(kStreamInfer, Request("a", asks));
    const auto sender = Arrived();
    EXPECT_TRUE(sender->Send(OneRow(1)).ok());
    EXPECT_TRUE(sender->SendLast(OneRow(2)).ok());
    const auto& response = harness_.Await(client, id);
    EXPECT_EQ(response.status(), "0");
    const std::vector<std::string> replies = Unframed(response.body);
    ASSERT_THAT(replies, SizeIs(2));
    EXPECT_FALSE(IsFinal(replies[0]));
    EXPECT_TRUE(IsFinal(replies[1]));
    EXPECT_THAT(replies[1], EndsWith(RawOf<float>({2})));
  }
}

TEST_F(DecoupledTest, FailureIsOneReplyAndTheStreamGoesOn) {
  Http2Client& client = harness_.Connect();
  const int32_t id = client.Call(kStreamInfer, Request("a"), /*ends=*/false);
  const auto sender = Arrived();
  EXPECT_TRUE(sender->Send(OneRow(1)).ok());
  sender->Finish(Unavailable("out of tokens"));
  harness_.Settle();
  client.Send(id, Request("b"), /*ends=*/true);
  Arrived()->Finish(Status::Ok());
  const auto& response = harness_.Await(client, id);
  EXPECT_EQ(response.status(), "0");
  const std::vector<std::string> replies = Unframed(response.body);
  ASSERT_THAT(replies, SizeIs(2));
  EXPECT_THAT(replies[1], HasSubstr("out of tokens"));
  EXPECT_TRUE(IsFinal(replies[1]));
}

TEST_F(DecoupledTest, FailureEndsAStreamThatAsksForStatuses) {
  Http2Client& client = harness_.Connect();
  const int32_t id = client.Call(kStreamInfer, Request("a") + Request("b"), /*ends=*/false,
                                 {{"triton_grpc_error", "true"}});
  harness_.Settle();
  const Senders senders = box_.Await(2);
  senders[0]->Finish(Unavailable("out of tokens"));
  EXPECT_EQ(harness_.Await(client, id).status(), "14");
  EXPECT_TRUE(senders[1]->is_cancelled());
  senders[1]->Finish(Status::Ok());
}

TEST_F(DecoupledTest, ClientThatDoesNotReadStopsItsModel) {
  Http2Client& client = harness_.Connect(/*window_bytes=*/1000);
  client.SetReads(false);
  const int32_t id = client.Call(kStreamInfer, Request("a"));
  const auto sender = Arrived();
  size_t told = 0;
  for (size_t before = SIZE_MAX; before != told;) {
    before = told;
    SendWhileThereIsRoom(*sender);
    sender->NotifyRoom([&] { told += 1; });
    harness_.Settle();
  }
  EXPECT_EQ(client.response(id).body.size(), 1000U);
  EXPECT_EQ(sender->room(), 0U);
  client.SetReads(true);
  client.Consume(id, 1000);
  harness_.Until([&] { return sender->room() == ResponseChannel::kMaxUntaken; });
  sender->Finish(Status::Ok());
  EXPECT_EQ(harness_.Await(client, id).status(), "0");
  EXPECT_THAT(Unframed(client.response(id).body).size(), testing::Ge(ResponseChannel::kMaxUntaken));
}

TEST_F(DecoupledTest, CancelledStreamTellsItsModels) {
  Http2Client& client = harness_.Connect();
  const int32_t id = client.Call(kStreamInfer, Request("a"));
  const auto sender = Arrived();
  bool told = false;
  sender->NotifyCancelled([&] { told = true; });
  client.Reset(id);
  harness_.Until([&] { return sender->is_cancelled(); });
  EXPECT_TRUE(told);
  EXPECT_EQ(sender->Send(OneRow(1)).code(), StatusCode::kCancelled);
  sender->Finish(Status::Ok());
  harness_.Until([&] { return harness_.Completed(StatusCode::kCancelled) == 1; });
  EXPECT_EQ(version_->counters().running, 0U);
}

TEST_F(DecoupledTest, ClientThatVanishesWithResponsesUnsent_LeavesNothing) {
  Http2Client& client = harness_.Connect(/*window_bytes=*/100);
  client.Call(kStreamInfer, Request("a") + Request("b", true));
  harness_.Settle();
  const Senders senders = box_.Await(2);
  for (const auto& sender : senders) SendWhileThereIsRoom(*sender);
  senders[1]->Finish(Status::Ok());
  harness_.Settle();
  client.Close();
  harness_.Until([&] { return senders[0]->is_cancelled(); });
  senders[0]->Finish(Status::Ok());
  harness_.Until([&] { return harness_.models.engine.admission().inflight() == 0; });
  EXPECT_EQ(harness_.shared->counters.buffered_bytes.load(), 0U);
}

TEST_F(DecoupledTest, DeadlineTellsTheModel) {
  Http2Client& client = harness_.Connect();
  const int32_t id =
      client.Call(kStreamInfer, Request("a"), /*ends=*/false, {{"grpc-timeout", "50m"}});
  const auto sender = Arrived();
  EXPECT_EQ(harness_.Await(client, id).status(), "4");
  EXPECT_TRUE(sender->is_cancelled());
  sender->Finish(Status::Ok());
  harness_.Until([&] { return harness_.models.engine.admission().inflight() == 0; });
}

class SmallStreamTest : public DecoupledTest {
 protected:
  SmallStreamTest() : DecoupledTest({.max_inflight_per_stream = 2}) {}
};

TEST_F(SmallStreamTest, RequestsHoldTheirPlacesUntilTheirResponsesAreSent) {
  Http2Client& client = harness_.Connect(/*window_bytes=*/10);
  client.SetReads(false);
  std::string requests;
  for (int i = 0; i < 5; ++i) requests += Request("a");
  const int32_t id = client.Call(kStreamInfer, requests);
  harness_.Settle();
  for (const auto& sender : box_.Await(2)) {
    EXPECT_TRUE(sender->Send(OneRow(1)).ok());
    sender->Finish(Status::Ok());
  }
  harness_.Settle();
  EXPECT_EQ(harness_.models.engine.admission().admitted(), 2U);
  client.SetReads(true);
  client.Consume(id, 10);
  for (size_t finished = 2; finished < 5;) {
    harness_.Until([&] { return harness_.models.engine.admission().admitted() > finished; });
    for (const auto& sender : box_.Await(1)) {
      sender->Finish(Status::Ok());
      finished += 1;
    }
  }
  EXPECT_EQ(harness_.Await(client, id).status(), "0");
}

TEST_F(DecoupledTest, UnsentResponsesAreChargedWithTheMemoryThatTheyHold) {
  Http2Client& client = harness_.Connect(/*window_bytes=*/10);
  client.SetReads(false);
  const int32_t id = client.Call(kStreamInfer, Request("a"), /*ends=*/true);
  const auto sender = Arrived();
  harness_.Settle();
  const uint64_t before = harness_.shared->counters.buffered_bytes.load();
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(sender->Send(OneRow(1)).ok());
    harness_.Settle();  // so that each comes in a block of its own, of a kilobyte
  }
  EXPECT_GE(harness_.shared->counters.buffered_bytes.load(), before + 10 * 1024);
  sender->Finish(Status::Ok());
  client.SetReads(true);
  client.Consume(id, 10);
  EXPECT_EQ(harness_.Await(client, id).status(), "0");
  EXPECT_EQ(harness_.shared->counters.buffered_bytes.load(), 0U);
}

class SmallBudgetTest : public DecoupledTest {
 protected:
  SmallBudgetTest() : DecoupledTest({.max_buffered_bytes = 2000}) {}
};

TEST_F(SmallBudgetTest, ResponsesThatNobodyReadsAreBoundedForAll) {
  Http2Client& client = harness_.Connect(/*window_bytes=*/100);
  client.SetReads(false);
  client.Call(kStreamInfer, Request("a"), /*ends=*/false);
  const auto sender = Arrived();
  while (sender->Send(OneRow(1)).ok()) harness_.Settle();
  EXPECT_TRUE(sender->is_cancelled());
  harness_.Until([&] { return harness_.Completed(StatusCode::kResourceExhausted) == 1; });
}

TEST_F(SmallBudgetTest, ResponsesThatCannotBeSentFailARequestThatItsModelHasFinished) {
  Http2Client& client = harness_.Connect();
  const int32_t id = client.Call(kStreamInfer, Request("a"));
  const auto sender = Arrived();
  for (int i = 0; i < 60; ++i) EXPECT_TRUE(sender->Send(OneRow(1)).ok());
  sender->Finish(Status::Ok());
  const auto& response = harness_.Await(client, id);
  const std::vector<std::string> replies = Unframed(response.body);
  ASSERT_FALSE(replies.empty());
  EXPECT_LT(replies.size(), 60U);
  EXPECT_THAT(replies.back(), HasSubstr("the server holds requests of 2000 bytes"));
  EXPECT_TRUE(IsFinal(replies.back()));
  EXPECT_EQ(harness_.Completed(StatusCode::kResourceExhausted), 1U);
}

class CompressingTest : public DecoupledTest {
 protected:
  CompressingTest() : DecoupledTest({.response_compression_level = 1}) {}
};

TEST_F(CompressingTest, EachResponseIsCompressedByItself) {
  Http2Client& client = harness_.Connect();
  const int32_t id =
      client.Call(kStreamInfer, Request("a"), /*ends=*/true, {{"grpc-accept-encoding", "gzip"}});
  const auto sender = Arrived();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(sender->Send(OneRow(1)).ok());
  sender->Finish(Status::Ok());
  const auto& response = harness_.Await(client, id);
  EXPECT_EQ(response["grpc-encoding"], "gzip");
  const std::vector<std::string> replies = Unframed(response.body);
  ASSERT_THAT(replies, SizeIs(3));
  for (const std::string& reply : replies) {
    const auto plain = Decompress(Compression::kGzip, SpanOf(reply), 1 << 20, HostPool::Shared());
    ASSERT_TRUE(plain.ok());
    EXPECT_THAT(TextOf(plain.value().span()), EndsWith(RawOf<float>({1})));
  }
}

}  // namespace
}  // namespace penstock
