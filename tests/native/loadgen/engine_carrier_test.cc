#include "native/engine_carrier.h"

#include <gmock/gmock.h>

#include "engine_harness.h"
#include "told.h"

namespace penstock::loadgen {
namespace {

std::unique_ptr<Dispatcher> StartOn(const std::shared_ptr<Engine>& engine, Recorder* recorder,
                                    const std::vector<std::string>* requests, size_t window) {
  auto made =
      Dispatcher::Start(recorder, {.window = window}, [&](Carrier::Sink* sink, int wake_fd) {
        return Result<std::unique_ptr<Carrier>>(
            std::make_unique<EngineCarrier>(engine, requests, sink, wake_fd));
      });
  EXPECT_TRUE(made.ok());
  return *std::move(made);
}

std::shared_ptr<Engine> EngineWith(FakeModelSpec::Execute execute) {
  auto engine = std::make_shared<Engine>(Engine::Options{});
  auto version = engine->CreateVersion(MakeModel(std::move(execute)), IdentitySpec());
  EXPECT_TRUE(version.ok());
  engine->Start(*version);
  engine->SetServing("m", {*version}, {});
  return engine;
}

TEST(EngineCarrier, BringsEachSamplesAnswer) {
  const auto engine = EngineWith(&Echo);
  const std::vector<std::string> requests{InferMessage().Row({1, 2}).bytes(),
                                          InferMessage().Row({3, 4}).bytes()};
  Recorder recorder({.samples = 2, .gives_tensors = true});
  Told told;
  recorder.SetComplete(told.Listener());
  const auto dispatcher = StartOn(engine, &recorder, &requests, 16);
  std::vector<Query> queries;
  for (uint64_t i = 0; i < 400; ++i) queries.push_back({i, i % 2});
  dispatcher->Issue(queries);
  const auto answers = told.Await(400);
  for (const auto& [id, tensor] : answers) {
    EXPECT_EQ(tensor,
              RawOf<float>(id % 2 == 0 ? std::vector<float>{1, 2} : std::vector<float>{3, 4}));
  }
  EXPECT_EQ(recorder.failures().size(), 0u);
}

TEST(EngineCarrier, ARefusalSaysWhy) {
  const auto engine = EngineWith(&Echo);
  const std::vector<std::string> requests{InferMessage("another").Row({1}).bytes(), "\xff"};
  Recorder recorder({.samples = 2});
  Told told;
  recorder.SetComplete(told.Listener());
  const auto dispatcher = StartOn(engine, &recorder, &requests, 0);
  dispatcher->Issue(std::vector<Query>{{1, 0}, {2, 1}});
  told.Await(2);
  const auto failures = recorder.failures();
  ASSERT_EQ(failures.size(), 2u);
  EXPECT_THAT(failures, ::testing::Contains(::testing::Key(::testing::HasSubstr("another"))));
}

TEST(EngineCarrier, ClosingWaitsForWhatRuns) {
  Gate gate;
  const auto engine = EngineWith([&](auto inputs, auto wanted, auto* outputs) {
    gate.Pass();
    return Echo(inputs, wanted, outputs);
  });
  const std::vector<std::string> requests{InferMessage().Row({1}).bytes()};
  Recorder recorder({.samples = 1});
  Told told;
  recorder.SetComplete(told.Listener());
  auto dispatcher = StartOn(engine, &recorder, &requests, 0);
  dispatcher->Issue(std::vector<Query>{{1, 0}});
  gate.AwaitArrived(1);
  Thread opener("opener", [&]() noexcept { gate.Open(); });
  dispatcher.reset();
  EXPECT_EQ(told.count(), 1u);
  EXPECT_EQ(recorder.failures().size(), 0u);
}

}  // namespace
}  // namespace penstock::loadgen
