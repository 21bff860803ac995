// Models that answer requests one by one and are not decoupled: one response to each, now or later.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "answer_harness.h"
#include "base/strcat.h"

namespace penstock {
namespace {

using testing::HasSubstr;

// What a whole batch's Execute would give, one request at a time; the last request first.
Status EchoEach(std::span<const BatchInput> inputs, std::span<const BatchRequest> requests) {
  const TensorView& in = inputs[0].tensor;
  size_t end = in.data.size();
  const size_t row_bytes = end / static_cast<size_t>(in.shape[0]);
  for (size_t i = requests.size(); i-- > 0;) {
    Shape shape = in.shape;
    shape[0] = requests[i].rows;
    end -= requests[i].rows * row_bytes;
    std::vector<BatchOutput> outputs;
    outputs.push_back(
        MakeOutput(0, DataType::kFp32, shape, in.data.subspan(end, requests[i].rows * row_bytes)));
    EXPECT_TRUE(requests[i].responses->Send(std::move(outputs)).ok());
    requests[i].responses->Finish(Status::Ok());
  }
  return Status::Ok();
}

// What came of a lone request that is answered by `answer`.
Status OutcomeOf(FakeModelSpec::Answer answer) {
  AnswerHarness harness(std::move(answer));
  harness.Send(InferMessage().Row({1}), /*is_stream=*/false);
  return harness.Await().status;
}

TEST(AnswerOneTest, EachRequestGetsItsOwnRows) {
  Gate gate;
  AnswerHarness harness([&gate](auto inputs, auto requests) {
    gate.Pass();
    return EchoEach(inputs, requests);
  });
  std::vector<RequestRef> sent;
  sent.push_back(harness.Send(InferMessage().Row({1}), false));
  gate.AwaitArrived(1);
  for (const float value : {2.0F, 3.0F}) {
    sent.push_back(harness.Send(InferMessage().Row({value, value}), false));
  }
  gate.Open();
  for (size_t i = 0; i < sent.size(); ++i) {
    ASSERT_TRUE(harness.Await(i).status.ok());
    const InferRequest& request = AsInfer(sent[i]);
    const std::vector<float> expected(i == 0 ? 1 : 2, static_cast<float>(i + 1));
    EXPECT_EQ(TextOf(request.outputs[0].data),
              std::string(reinterpret_cast<const char*>(expected.data()), 4 * expected.size()));
  }
  const VersionStatistics statistics = harness.version->statistics();
  EXPECT_EQ(statistics.success.count, 3U);
  EXPECT_EQ(statistics.execution_count, 2U);
  EXPECT_EQ(statistics.batches.at(2).count, 1U);
}

TEST(AnswerOneTest, BackendSeesIdRowsWantedAndTheClientsOwnParameters) {
  AnswerHarness harness([](auto, std::span<const BatchRequest> requests) {
    const BatchRequest& request = requests[0];
    EXPECT_EQ(request.id, "seven");
    EXPECT_EQ(request.rows, 1U);
    EXPECT_EQ(request.timeout_us, 5'000'000);
    EXPECT_EQ(request.wanted.size(), 1U);
    EXPECT_EQ(request.parameters.size(), 1U);
    for (const Parameter& parameter : request.parameters) EXPECT_EQ(parameter.key, "top_k");
    EXPECT_TRUE(request.responses->Send(OneRow(1)).ok());
    request.responses->Finish(Status::Ok());
    return Status::Ok();
  });
  harness.Send(InferMessage()
                   .Row({1})
                   .Id("seven")
                   .Parameter("timeout", 2, 5'000'000)
                   .Parameter("top_k", 2, 40)
                   .Parameter("priority", 5, 1),
               /*is_stream=*/false);
  EXPECT_TRUE(harness.Await().status.ok());
}

TEST(AnswerOneTest, OneOfABatchMayFailAlone) {
  Gate gate;
  AnswerHarness harness([&gate](auto, std::span<const BatchRequest> requests) {
    gate.Pass();
    for (size_t i = 0; i < requests.size(); ++i) {
      if (i != 1) {
        EXPECT_TRUE(requests[i].responses->Send(OneRow(1)).ok());
      }
      requests[i].responses->Finish(i == 1 ? InvalidArgument("not this one") : Status::Ok());
    }
    return Status::Ok();
  });
  for (int i = 0; i < 4; ++i) {
    harness.Send(InferMessage().Row({1}), false);
    if (i == 0) gate.AwaitArrived(1);
  }
  gate.Open();
  EXPECT_TRUE(harness.Await(0).status.ok());
  EXPECT_TRUE(harness.Await(1).status.ok());
  EXPECT_EQ(harness.Await(2).status.message(), "not this one");
  EXPECT_TRUE(harness.Await(3).status.ok());
}

TEST(AnswerOneTest, NoResponseOrTwo_AreInternal) {
  for (const int count : {0, 2, 3}) {
    const Status status = OutcomeOf([count](auto, std::span<const BatchRequest> requests) {
      for (int i = 0; i < count; ++i) EXPECT_TRUE(requests[0].responses->Send(OneRow(1)).ok());
      requests[0].responses->Finish(Status::Ok());
      return Status::Ok();
    });
    EXPECT_EQ(status.code(), StatusCode::kInternal);
    EXPECT_EQ(status.message(), StrCat("expected a single response, got ", count));
  }
}

TEST(AnswerOneTest, WhatIsNotFinished_EndsWithTheBatchsFailure) {
  const Status status = OutcomeOf([](auto, auto) { return Unavailable("the worker has gone"); });
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "the worker has gone");
}

TEST(AnswerOneTest, BackendThatThrows_FailsWhatIsNotFinished) {
  const Status status = OutcomeOf([](auto, auto) -> Status { throw std::runtime_error("secret"); });
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_EQ(status.message(), "model 'm' version 1 threw while running a batch");
}

TEST(AnswerOneTest, SenderThatIsDropped_EndsItsRequestInternal) {
  const Status status = OutcomeOf([](auto, auto) { return Status::Ok(); });
  EXPECT_EQ(status.code(), StatusCode::kInternal);
  EXPECT_EQ(status.message(), "model 'm' version 1 dropped a request without finishing it");
}

TEST(AnswerOneTest, SenderThatIsKeptAndDropped_EndsItsRequestInternal) {
  SenderBox box;
  AnswerHarness harness(box.Keeper());
  harness.Send(InferMessage().Row({1}), false);
  box.Await(1).clear();
  EXPECT_THAT(std::string(harness.Await().status.message()), HasSubstr("dropped a request"));
}

TEST(AnswerOneTest, AnswerAfterTheBatch_Counts) {
  SenderBox box;
  AnswerHarness harness(box.Keeper());
  const RequestRef sent = harness.Send(InferMessage().Row({1}), false);
  const Senders senders = box.Await(1);
  EXPECT_TRUE(senders[0]->Send(OneRow(9)).ok());
  senders[0]->Finish(Status::Ok());
  EXPECT_TRUE(harness.Await().status.ok());
  EXPECT_EQ(AsInfer(sent).outputs.size(), 1U);
  EXPECT_EQ(harness.version->statistics().success.count, 1U);
  EXPECT_EQ(harness.version->statistics().inference_count, 1U);
  EXPECT_EQ(harness.version->statistics().execution_count, 1U);
  EXPECT_EQ(harness.version->counters().running, 0U);
}

TEST(AnswerOneTest, SendAfterFinish_IsRefusedAndFinishCountsOnce) {
  SenderBox box;
  AnswerHarness harness(box.Keeper());
  harness.Send(InferMessage().Row({1}), false);
  const Senders senders = box.Await(1);
  senders[0]->Finish(InvalidArgument("first"));
  senders[0]->Finish(Status::Ok());
  EXPECT_EQ(senders[0]->Send(OneRow(1)).code(), StatusCode::kFailedPrecondition);
  EXPECT_EQ(harness.Await().status.message(), "first");
}

TEST(AnswerOneTest, OutputThatDoesNotFit_FailsTheRequestByName) {
  struct Case {
    std::vector<BatchOutput> outputs;
    const char* says;
  };
  std::vector<Case> cases;
  cases.push_back({OneRow(1, 2), "output 'OUT' came with shape [2,1]"});
  cases.push_back({{}, "gave a response without output 'OUT'"});
  cases.push_back({OneRow(1), "output 'OUT' came as INT32, expected FP32"});
  cases.back().outputs[0].dtype = DataType::kInt32;
  cases.push_back({OneRow(1), "output 'OUT' came with 3 bytes, which do not fit its shape [1,1]"});
  cases.back().outputs[0].data.Truncate(3);
  for (Case& wrong : cases) {
    const Status status = OutcomeOf([&wrong](auto, std::span<const BatchRequest> requests) {
      const Status sent = requests[0].responses->Send(std::move(wrong.outputs));
      EXPECT_EQ(sent.code(), StatusCode::kInternal);
      EXPECT_TRUE(requests[0].responses->is_cancelled());
      requests[0].responses->Finish(Status::Ok());
      return Status::Ok();
    });
    EXPECT_EQ(status.code(), StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), HasSubstr(wrong.says));
  }
}

TEST(AnswerOneTest, Classification_IsMadeOfEachResponse) {
  AnswerHarness harness([](auto, std::span<const BatchRequest> requests) {
    EXPECT_TRUE(requests[0].responses->Send(OneRow(4)).ok());
    requests[0].responses->Finish(Status::Ok());
    return Status::Ok();
  });
  const RequestRef sent =
      harness.Send(InferMessage().Row({1}).Output("OUT", {1}), /*is_stream=*/false);
  ASSERT_TRUE(harness.Await().status.ok());
  EXPECT_EQ(AsInfer(sent).outputs[0].dtype, DataType::kBytes);
}

TEST(AnswerOneTest, CancelReachesTheModel_AndEndsTheRequestWhenItFinishes) {
  SenderBox box;
  AnswerHarness harness(box.Keeper());
  const RequestRef sent = harness.Send(InferMessage().Row({1}), false);
  const Senders senders = box.Await(1);
  EXPECT_FALSE(senders[0]->is_cancelled());
  harness.engine.Cancel(sent);
  EXPECT_TRUE(senders[0]->is_cancelled());
  EXPECT_EQ(senders[0]->Send(OneRow(1)).code(), StatusCode::kCancelled);
  EXPECT_EQ(harness.version->counters().running, 1U);
  senders[0]->Finish(Status::Ok());
  EXPECT_EQ(harness.Await().status.code(), StatusCode::kCancelled);
  EXPECT_EQ(harness.version->counters().cancelled_running, 1U);
  EXPECT_EQ(harness.version->counters().running, 0U);
}

}  // namespace
}  // namespace penstock
