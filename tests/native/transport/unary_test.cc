#include <gmock/gmock.h>

#include <atomic>
#include <vector>

#include "testing/fake_clock.h"
#include "transport_harness.h"

namespace penstock {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::SizeIs;

TEST(Unary, AnswersWithTheModelsOutput) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kInfer, RowRequest({1, 2, 3}));
  const auto& response = harness.Await(client, id);
  EXPECT_EQ(response[":status"], "200");
  EXPECT_EQ(response["content-type"], "application/grpc");
  EXPECT_EQ(response.status(), "0");
  EXPECT_THAT(Unframed(response.body), ElementsAre(EndsWith(RawOf<float>({1, 2, 3}))));
}

TEST(Unary, WhatOneReadBringsInIsOneBatch) {
  FakeClock clock;
  Engine::Options options;
  options.clock = &clock;
  TransportHarness harness({}, std::move(options));
  const auto version = harness.models.Serve(IdentitySpec());
  clock.AwaitWaiters(2);  // the instance, which else may begin amidst the read, and the timer
  Http2Client& client = harness.Connect();
  std::vector<int32_t> ids;
  for (int i = 0; i < 8; ++i)
    ids.push_back(client.Call(kInfer, RowRequest({static_cast<float>(i)})));
  for (int i = 0; i < 8; ++i) {
    const auto& response = harness.Await(client, ids[static_cast<size_t>(i)]);
    EXPECT_THAT(Unframed(response.body),
                ElementsAre(EndsWith(RawOf<float>({static_cast<float>(i)}))));
  }
  EXPECT_EQ(version->statistics().execution_count, 1U);
}

TEST(Unary, FailureIsTrailersOnly) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kInfer, RowRequest({1}, "caf\xC3\xA9"));
  const auto& response = harness.Await(client, id);
  EXPECT_EQ(response[":status"], "200");
  EXPECT_EQ(response.status(), "5");
  EXPECT_THAT(response.message(), HasSubstr("'caf%C3%A9' is not found"));
  EXPECT_EQ(response.body, "");
}

TEST(Unary, UnknownModelIsWorthARetryWhileModelsAreLoaded) {
  TransportHarness harness;
  harness.shared->has_loaded.store(false);
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kInfer, RowRequest({1}, "n"));
  const auto& response = harness.Await(client, id);
  EXPECT_EQ(response.status(), "14");
  EXPECT_THAT(response.message(), HasSubstr("still loading models"));
}

TEST(Unary, MustHaveOneMessage) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t none = client.Call(kInfer, "");
  const int32_t two = client.Call(kInfer, RowRequest({1}) + RowRequest({1}));
  const int32_t half = client.Call(kInfer, RowRequest({1}).substr(0, 12));
  EXPECT_EQ(harness.Await(client, none).status(), "12");
  EXPECT_EQ(harness.Await(client, two).status(), "12");
  EXPECT_THAT(harness.Await(client, half).message(), HasSubstr("in the middle of a message"));
}

TEST(Unary, MessageInManyPiecesArrivesWhole) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const std::string body = RowRequest({4, 5});
  const int32_t id = client.Call(kInfer, body.substr(0, 1), /*ends=*/false);
  for (size_t i = 1; i < body.size(); ++i) {
    harness.Step(0);
    client.Send(id, body.substr(i, 1), /*ends=*/i + 1 == body.size());
  }
  EXPECT_THAT(Unframed(harness.Await(client, id).body),
              ElementsAre(EndsWith(RawOf<float>({4, 5}))));
}

TEST(Unary, LargeTensorsGoThroughSmallWindows) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect(/*window_bytes=*/50'000);
  std::vector<float> row(300'000);
  for (size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i);
  const int32_t one = client.Call(kInfer, RowRequest(row));
  const int32_t other = client.Call(kInfer, RowRequest(row));
  EXPECT_THAT(Unframed(harness.Await(client, one).body), ElementsAre(EndsWith(RawOf(row))));
  EXPECT_THAT(Unframed(harness.Await(client, other).body), ElementsAre(EndsWith(RawOf(row))));
  EXPECT_EQ(harness.shared->counters.buffered_bytes.load(), 0U);
}

TEST(Unary, SlowReaderHoldsNoBatch) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect(/*window_bytes=*/16);
  client.SetReads(false);
  const int32_t id = client.Call(kInfer, RowRequest({1, 2, 3}));
  harness.Until([&] { return client.response(id).body.size() == 16; });
  harness.Settle();
  EXPECT_EQ(harness.shared->counters.buffered_bytes.load(), 0U) << "its request was let go";
  client.SetReads(true);
  client.Consume(id, 16);
  EXPECT_THAT(Unframed(harness.Await(client, id).body),
              ElementsAre(EndsWith(RawOf<float>({1, 2, 3}))));
}

// Echoes the first value, a million times, in memory that counts when it is freed.
FakeModelSpec::Execute LargeReplies(std::atomic<int>& freed) {
  return [&freed](auto inputs, auto, auto* outputs) {
    constexpr int64_t kCount = 1 << 20;
    auto* values = new std::vector<float>(
        kCount, *reinterpret_cast<const float*>(inputs[0].tensor.data.data()));
    struct Held {
      std::vector<float>* values;
      std::atomic<int>* freed;
    };
    auto* const held = new Held{values, &freed};
    BatchOutput output;
    output.index = 0;
    output.dtype = DataType::kFp32;
    output.shape = Shape{1, kCount};
    output.data = Buffer(
        values->data(), values->size() * sizeof(float), values->size() * sizeof(float),
        [](void* context, void*, size_t) noexcept {
          auto* const done = static_cast<Held*>(context);
          done->freed->fetch_add(1);
          delete done->values;
          delete done;
        },
        held);
    outputs->push_back(std::move(output));
    return Status::Ok();
  };
}

class SlowReader : public testing::TestWithParam<int> {};

// Whether its window is full or its socket: a large reply is sent from where its batch left it, and
// a client that takes its time must not keep that batch's memory.
TEST_P(SlowReader, LetsGoOfTheBatchAfterASecond) {
  FakeClock clock;
  std::atomic<int> freed = 0;
  Engine::Options options;
  options.clock = &clock;
  TransportHarness harness({}, std::move(options));
  VersionSpec spec = IdentitySpec();
  spec.max_batch_size = 1;
  harness.models.Serve(spec, LargeReplies(freed));
  Http2Client& client = harness.Connect(1 << 20, /*send_buffer_bytes=*/GetParam());
  const int32_t id = client.Call(kInfer, RowRequest({7}));
  client.Pump();
  client.SetReads(false);
  harness.io->Turn(0);
  harness.TurnUntil([&] { return harness.shared->counters.bytes_written.load() > 1000; });
  for (int i = 0; i < 20; ++i) harness.io->Turn(0);
  EXPECT_EQ(freed.load(), 0);
  clock.Advance(int64_t{999} * 1'000'000);
  harness.io->Turn(0);
  EXPECT_EQ(freed.load(), 0);
  clock.Advance(int64_t{1} * 1'000'000);
  harness.TurnUntil([&] { return freed.load() == 1; });
  client.SetReads(true);
  client.Consume(id, client.response(id).body.size());
  const std::string expected = RawOf(std::vector<float>(1 << 20, 7));
  EXPECT_THAT(Unframed(harness.Await(client, id).body), ElementsAre(EndsWith(expected)));
}

INSTANTIATE_TEST_SUITE_P(SendBuffers, SlowReader, testing::Values(0, 4096));

TEST(Unary, ResetCancelsAQueuedRequest) {
  TransportHarness harness;
  Gate gate;
  VersionSpec spec = IdentitySpec();
  spec.max_batch_size = 1;
  harness.models.Serve(spec, EchoBehind(gate));
  Http2Client& client = harness.Connect();
  const int32_t running = client.Call(kInfer, RowRequest({1}));
  harness.Settle();
  gate.AwaitArrived(1);
  const int32_t queued = client.Call(kInfer, RowRequest({2}));
  harness.Settle();
  client.Reset(queued);
  harness.Until([&] { return harness.Completed(StatusCode::kCancelled) == 1; });
  gate.Open();
  EXPECT_EQ(harness.Await(client, running).status(), "0");
}

TEST(Unary, ConnectionLostWhileItsBatchRunsLosesNothingElse) {
  TransportHarness harness;
  Gate gate;
  harness.models.Serve(IdentitySpec(), EchoBehind(gate));
  Http2Client& lost = harness.Connect();
  lost.Call(kInfer, RowRequest({1}));
  harness.Settle();
  gate.AwaitArrived(1);
  lost.Close();
  harness.Until([&] { return harness.shared->counters.open_connections.load() == 0; });
  gate.Open();
  harness.Until([&] { return harness.models.engine.admission().inflight() == 0; });
  EXPECT_EQ(harness.shared->counters.active_calls.load(), 0U);
  EXPECT_EQ(harness.shared->counters.buffered_bytes.load(), 0U);
}

TEST(Unary, DeadlineEndsACallThatNeverSendsItsMessage) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kInfer, "", /*ends=*/false, {{"grpc-timeout", "50m"}});
  EXPECT_EQ(harness.Await(client, id).status(), "4");
}

TEST(Unary, CompressedRequestsAreTaken) {
  TransportHarness harness;
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const std::string message = InferMessage().Row({1, 2}).bytes();
  const auto packed = Compress(Compression::kGzip, SpanOf(message), 6, HostPool::Shared());
  ASSERT_TRUE(packed.ok());
  const std::string body = Framed(TextOf(packed->span()), /*is_compressed=*/true);
  const int32_t said = client.Call(kInfer, body, true, {{"grpc-encoding", "gzip"}});
  const int32_t unsaid = client.Call(kInfer, body, true);
  const int32_t unknown = client.Call(kInfer, body, true, {{"grpc-encoding", "snappy"}});
  EXPECT_EQ(harness.Await(client, said).status(), "0");
  EXPECT_EQ(harness.Await(client, unsaid).status(), "13");
  EXPECT_EQ(harness.Await(client, unknown).status(), "12");
}

TEST(Unary, CompressedRequestsAreRefusedWhereThatIsOff) {
  TransportHarness harness({.compression = false});
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t id =
      client.Call(kInfer, Framed("x", /*is_compressed=*/true), true, {{"grpc-encoding", "gzip"}});
  EXPECT_EQ(harness.Await(client, id).status(), "12");
  EXPECT_EQ(client.response(id).message(), "Compression algorithm 'gzip' is disabled.");
}

TEST(Unary, ResponsesAreCompressedForClientsThatTakeIt) {
  TransportHarness harness({.response_compression_level = 2});
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const std::string request = RowRequest(std::vector<float>(1000));
  const int32_t packed =
      client.Call(kInfer, request, true, {{"grpc-accept-encoding", "identity,deflate,gzip"}});
  const int32_t plain = client.Call(kInfer, request, true);
  const auto& response = harness.Await(client, packed);
  EXPECT_EQ(response["grpc-encoding"], "gzip");
  ASSERT_EQ(response.body[0], 1);
  EXPECT_LT(response.body.size(), 500U);
  const std::string inner = Unframed(response.body)[0];
  const auto unpacked = Decompress(Compression::kGzip, SpanOf(inner), 10'000, HostPool::Shared());
  ASSERT_TRUE(unpacked.ok());
  EXPECT_THAT(TextOf(unpacked->span()), EndsWith(std::string(4000, '\0')));
  EXPECT_EQ(harness.Await(client, plain)["grpc-encoding"], "");
}

TEST(Unary, MessagesOverTheLimitsAreRefused) {
  TransportHarness harness({.max_message_bytes = 4096, .max_buffered_bytes = 5000});
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t large = client.Call(kInfer, RowRequest(std::vector<float>(2000)));
  EXPECT_EQ(harness.Await(client, large).status(), "8");
  EXPECT_THAT(client.response(large).message(), HasSubstr("larger than max"));
  const std::string fits = RowRequest(std::vector<float>(900));
  client.Call(kInfer, fits.substr(0, fits.size() - 1), /*ends=*/false);
  const int32_t beyond = client.Call(kInfer, fits);
  EXPECT_EQ(harness.Await(client, beyond).status(), "8");
  EXPECT_THAT(client.response(beyond).message(), HasSubstr("holds requests of 5000 bytes"));
}

TEST(Unary, ResponsesOverTheLimitAreRefused) {
  TransportHarness harness({.max_message_bytes = 4096});
  harness.models.Serve(IdentitySpec(), [](auto, auto, auto* outputs) {
    const std::string large(8000, '\0');
    outputs->push_back(MakeOutput(0, DataType::kFp32, {1, 2000}, SpanOf(large)));
    return Status::Ok();
  });
  Http2Client& client = harness.Connect();
  const int32_t id = client.Call(kInfer, RowRequest({1}));
  EXPECT_EQ(harness.Await(client, id).status(), "8");
  EXPECT_THAT(client.response(id).message(), HasSubstr("Sent message larger than max"));
}

TEST(Unary, WhatIsNoGrpcIsAnsweredByHttp) {
  TransportHarness harness;
  Http2Client& client = harness.Connect();
  const Http2Client::Headers get = {
      {":method", "GET"}, {":scheme", "http"}, {":path", "/"}, {":authority", "t"}};
  const Http2Client::Headers json = {{":method", "POST"},
                                     {":scheme", "http"},
                                     {":path", kInfer},
                                     {":authority", "t"},
                                     {"content-type", "application/json"}};
  EXPECT_EQ(harness.Await(client, client.Request(get, "", true))[":status"], "405");
  EXPECT_EQ(harness.Await(client, client.Request(json, "{}", true))[":status"], "415");
}

TEST(Unary, HeadersOverTheLimitAreRefused) {
  TransportHarness harness({.max_header_bytes = 1000});
  harness.models.Serve(IdentitySpec());
  Http2Client& client = harness.Connect();
  const int32_t id =
      client.Call(kInfer, RowRequest({1}), true, {{"x-long", std::string(2000, 'x')}});
  EXPECT_EQ(harness.Await(client, id).status(), "8");
  EXPECT_EQ(harness.Await(client, client.Call(kInfer, RowRequest({1}))).status(), "0");
}

}  // namespace
}  // namespace penstock
