#include "load/client.h"

#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "peer.h"

namespace penstock::load {
namespace {

constexpr int64_t kPatienceNs = int64_t{60} * 1'000'000'000;

std::unique_ptr<Client> Start(const Peer& peer, size_t connections = 1) {
  FleetOptions options;
  options.target = {.port = peer.port(), .path = "/test.Test/Call"};
  options.connections = connections;
  auto client = Client::Start(std::move(options));
  EXPECT_TRUE(client.ok()) << client.status().ToString();
  return *std::move(client);
}

// Several threads submit and take at once; every tag comes back once, with its own message.
TEST(Client, CompletesEachRequestOnceWhoeverTakesIt) {
  Peer peer([](std::string_view message) { return Reply{.data = Framed(message)}; });
  const auto client = Start(peer, 3);
  constexpr uint64_t kEach = 500;
  constexpr uint64_t kThreads = 3;
  Mutex mu;
  std::set<uint64_t> tags;
  std::atomic<uint64_t> taken{0};
  std::vector<std::thread> threads;
  for (uint64_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (uint64_t i = 0; i < kEach; ++i) {
        const uint64_t tag = t * kEach + i;
        EXPECT_TRUE(client->Submit({{tag, std::to_string(tag)}}).ok());
      }
      while (taken.load() < kThreads * kEach) {
        for (const auto& completion : client->Take(1'000'000)) {
          EXPECT_EQ(completion.outcome, Outcome::kOk);
          EXPECT_EQ(completion.payload, std::to_string(completion.tag));
          const MutexLock lock(mu);
          EXPECT_TRUE(tags.insert(completion.tag).second);
          ++taken;
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(tags.size(), kThreads * kEach);
  EXPECT_EQ(client->in_flight(), 0u);
}

TEST(Client, CloseWakesWhoWaitsAndCompletesTheRest) {
  Peer peer([](std::string_view) { return Reply{.act = Reply::Act::kNever}; });
  const auto client = Start(peer);
  ASSERT_TRUE(client->Submit({{7, "x"}}).ok());
  std::thread closer([&] { client->Close(); });
  std::vector<ClientCompletion> completions;
  while (completions.empty()) completions = client->Take(kPatienceNs);
  closer.join();
  EXPECT_EQ(completions[0].tag, 7u);
  EXPECT_EQ(completions[0].outcome, Outcome::kNoAnswer);
  EXPECT_TRUE(client->Take(kPatienceNs).empty());
  EXPECT_EQ(client->Submit({{8, "x"}}).code(), StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace penstock::load
