#include <gmock/gmock.h>

#include <memory>
#include <utility>
#include <vector>

#include "transport_harness.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::SizeIs;

TEST(Stream, AnswersInTheOrderOfItsRequests) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kStreamInfer, RowRequest({1}) + RowRequest({2}) + RowRequest({3}));
  const auto& response = harness.Await(client, id);
  EXPECT_EQ(response.status(), "0");
  EXPECT_THAT(Unframed(response.body),
              ElementsAre(EndsWith(RawOf<float>({1})), EndsWith(RawOf<float>({2})),
                          EndsWith(RawOf<float>({3}))));
}

TEST(Stream, FailureIsAReplyAndTheStreamGoesOn) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const std::string wrong = Framed(InferMessage("none").Id("7").Row({1}).bytes());
  const int32_t id = client.Call(kStreamInfer, wrong + RowRequest({2}));
  const auto& response = harness.Await(client, id);
  EXPECT_EQ(response.status(), "0");
  EXPECT_THAT(Unframed(response.body),
              ElementsAre(HasSubstr("'none' is not found"), EndsWith(RawOf<float>({2}))));
}

TEST(Stream, FailureEndsItWhereTheClientAskedForThat) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kStreamInfer, RowRequest({1}, "none") + RowRequest({2}),
                                 /*ends=*/false, {{"triton_grpc_error", "true"}});
  const auto& response = harness.Await(client, id);
  EXPECT_EQ(response.status(), "5");
  EXPECT_EQ(response.body, "");
}

TEST(Stream, StaysOpenUntilTheClientEndsIt) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kStreamInfer, RowRequest({1}), /*ends=*/false);
  harness.Until([&] { return !client.response(id).body.empty(); });
  EXPECT_FALSE(client.response(id).is_closed);
  client.Send(id, RowRequest({2}), /*ends=*/true);
  EXPECT_THAT(Unframed(harness.Await(client, id).body), SizeIs(2));
}

TEST(Stream, ReadsNoMoreThanItMayHaveUnderWay) {
  TransportHarness harness({.max_inflight_per_stream = 2});
  Gate gate;
  harness.models.Serve(IdentitySpec(), EchoBehind(gate));
  Http2Client& client = harness.Connect();
  std::string requests;
  for (int i = 0; i < 20; ++i) requests += RowRequest({static_cast<float>(i)});
  const int32_t id = client.Call(kStreamInfer, requests);
  harness.Settle();
  gate.AwaitArrived(1);
  EXPECT_EQ(harness.models.engine.admission().inflight(), 2U);
  gate.Open();
  const std::vector<std::string> replies = Unframed(harness.Await(client, id).body);
  ASSERT_THAT(replies, SizeIs(20));
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(replies[static_cast<size_t>(i)], EndsWith(RawOf<float>({static_cast<float>(i)})));
  }
}

TEST(Stream, ClientThatReadsNothingStopsTheReading) {
  TransportHarness harness({.max_inflight_per_stream = 4});
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect(/*window_bytes=*/100);
  client.SetReads(false);
  std::string requests;
  for (int i = 0; i < 100; ++i) requests += RowRequest({static_cast<float>(i)});
  const int32_t id = client.Call(kStreamInfer, requests);
  harness.Until([&] { return client.response(id).body.size() == 100; });
  harness.Settle();
  EXPECT_LE(harness.models.engine.admission().admitted(), 8U);
  client.SetReads(true);
  client.Consume(id, 100);
  EXPECT_THAT(Unframed(harness.Await(client, id).body), SizeIs(100));
}

TEST(Stream, ReplyBehindOneThatTheWindowHoldsUpLetsGoOfItsBatch) {
  TransportHarness harness;
  Gate gate;
  harness.models.Serve(IdentitySpec());
  VersionSpec slow = IdentitySpec();
  slow.model_name = "slow";
  auto version = harness.models.Serve(std::move(slow), EchoBehind(gate));
  Http2Client& client = harness.Connect(/*window_bytes=*/10);
  client.SetReads(false);
  const int32_t id = client.Call(kStreamInfer, RowRequest({1}), /*ends=*/false);
  harness.Until([&] { return client.response(id).body.size() == 10; });
  client.Send(id, RowRequest({2}, "slow"), /*ends=*/true);
  harness.Settle();
  gate.AwaitArrived(1);
  harness.models.engine.SetServing("slow", {}, {});
  gate.Open();
  ASSERT_TRUE(harness.models.engine.Drain(version, kLongNs));
  const std::weak_ptr<ModelVersion> pinned = std::exchange(version, nullptr);
  harness.TurnUntil([&] { return pinned.expired(); });  // by nobody but the request
  client.SetReads(true);
  client.Consume(id, 10);
  EXPECT_THAT(Unframed(harness.Await(client, id).body),
              ElementsAre(EndsWith(RawOf<float>({1})), EndsWith(RawOf<float>({2}))));
}

TEST(Stream, ClosingServerAnswersWhatItReadAndSaysSo) {
  TransportHarness harness;
  Gate gate;
  harness.models.Serve(IdentitySpec(), EchoBehind(gate));
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kStreamInfer, RowRequest({1}), /*ends=*/false);
  const int32_t quiet = client.Call(kStreamInfer, "", /*ends=*/false);
  harness.Settle();
  gate.AwaitArrived(1);
  harness.shared->is_closing.store(true);
  harness.io->CloseStreams();
  EXPECT_EQ(harness.Await(client, quiet).status(), "14");
  client.Send(id, RowRequest({2}));
  harness.Settle();
  gate.Open();
  const auto& response = harness.Await(client, id);
  EXPECT_EQ(response.status(), "14");
  EXPECT_THAT(response.message(), HasSubstr("shutting down"));
  EXPECT_THAT(Unframed(response.body), SizeIs(1));
}

TEST(Stream, BegunWhileTheServerClosesIsEndedAtOnce) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  harness.shared->is_closing.store(true);
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kStreamInfer, RowRequest({1}), /*ends=*/false);
  EXPECT_EQ(harness.Await(client, id).status(), "14");
}

TEST(Stream, DeadlineEndsIt) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kStreamInfer, "", /*ends=*/false, {{"grpc-timeout", "30m"}});
  EXPECT_EQ(harness.Await(client, id).status(), "4");
}

}  // namespace
}  // namespace penstock
