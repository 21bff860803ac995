#include "native/grpc_carrier.h"

#include <gmock/gmock.h>

#include <protozero/pbf_writer.hpp>
#include <thread>

#include "peer.h"
#include "told.h"

namespace penstock::loadgen {
namespace {

using load::Framed;
using load::Peer;
using load::Reply;
using ::testing::HasSubstr;

load::FleetOptions OptionsFor(const Peer& peer) {
  load::FleetOptions options;
  options.target = {.port = peer.port(), .path = "/test.Test/Call"};
  options.connections = 2;
  return options;
}

struct CarrierBench {
  CarrierBench(const Peer& peer, size_t samples) : recorder({.samples = samples}) {
    recorder.SetComplete(told.Listener());
    for (size_t i = 0; i < samples; ++i) requests.push_back("request " + std::to_string(i));
    auto made = Dispatcher::Start(&recorder, {}, [&](Carrier::Sink* sink, int wake_fd) {
      return GrpcCarrier::Connect(OptionsFor(peer), &requests, sink, wake_fd);
    });
    EXPECT_TRUE(made.ok()) << made.status().ToString();
    dispatcher = *std::move(made);
  }

  std::vector<std::string> requests;
  Recorder recorder;
  Told told;
  std::unique_ptr<Dispatcher> dispatcher;
};

TEST(GrpcCarrier, BringsEachSamplesAnswer) {
  Peer peer([](std::string_view message) { return Reply{.data = Framed(message)}; });
  CarrierBench bench(peer, 10);
  for (uint64_t i = 0; i < 1000; ++i) {
    const Query query{i, i % 10};
    bench.dispatcher->Issue({&query, 1});
  }
  bench.told.Await(1000);
  bench.dispatcher.reset();
  for (size_t sample = 0; sample < 10; ++sample) {
    ASSERT_EQ(bench.recorder.answers()[sample].size(), 1u);
    EXPECT_EQ(bench.recorder.answers()[sample][0].message, bench.requests[sample]);
  }
}

TEST(GrpcCarrier, AServerThatHangsUpIsLost) {
  Peer peer([](std::string_view) { return Reply{.act = Reply::Act::kHangUp}; });
  CarrierBench bench(peer, 1);
  const Query query{1, 0};
  bench.dispatcher->Issue({&query, 1});
  while (!bench.recorder.is_lost()) std::this_thread::yield();
  bench.dispatcher.reset();
  EXPECT_THAT(bench.recorder.failures().begin()->first, HasSubstr("connection lost"));
}

TEST(GrpcCarrier, AServerThatNeverAnswersDoesNotKeepTheDispatcher) {
  Peer peer([](std::string_view) { return Reply{.act = Reply::Act::kNever}; });
  CarrierBench bench(peer, 1);
  const Query query{1, 0};
  bench.dispatcher->Issue({&query, 1});
  bench.dispatcher.reset();
  EXPECT_EQ(bench.recorder.latency().count(), 0u);
}

TEST(GrpcCarrier, NobodyWhoListensIsAnError) {
  uint16_t port = 0;
  {
    port = Peer([](std::string_view) { return Reply{}; }).port();
  }
  load::FleetOptions options;
  options.target = {.port = port, .path = "/test.Test/Call"};
  Recorder recorder({.samples = 1});
  const std::vector<std::string> requests = {"request"};
  const auto made = Dispatcher::Start(&recorder, {}, [&](Carrier::Sink* sink, int wake_fd) {
    return GrpcCarrier::Connect(options, &requests, sink, wake_fd);
  });
  EXPECT_EQ(made.status().code(), StatusCode::kUnavailable);
  EXPECT_FALSE(AskServerName(options).ok());
}

TEST(AskServerName, GivesNameAndVersion) {
  std::string metadata;
  protozero::pbf_writer writer(metadata);
  writer.add_string(1, "penstock");
  writer.add_string(2, "1.2.3");
  Peer peer([&](std::string_view message) {
    EXPECT_EQ(message, "");
    return Reply{.data = Framed(metadata)};
  });
  EXPECT_EQ(*AskServerName(OptionsFor(peer)), "penstock 1.2.3");
}

TEST(AskServerName, SaysWhatIsWrong) {
  Peer refusing([](std::string_view) { return Reply{.status = "7", .message = "no"}; });
  EXPECT_THAT(std::string(AskServerName(OptionsFor(refusing)).status().message()),
              HasSubstr("PERMISSION_DENIED no"));
  Peer nameless([](std::string_view) { return Reply{.data = Framed("")}; });
  EXPECT_THAT(std::string(AskServerName(OptionsFor(nameless)).status().message()),
              HasSubstr("no name"));
}

}  // namespace
}  // namespace penstock::loadgen
