#include "load/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace penstock::load {
namespace {

using testing::HasSubstr;

class FlagsTest : public testing::Test {
 protected:
  FlagsTest() { std::ofstream(path_) << "bytes"; }

  std::string Refusal(std::vector<std::string> extra) {
    std::vector<std::string> arguments = {"--address", "h:1", "--request", path_};
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    const auto flags = ParseFlags(arguments);
    return flags.ok() ? "" : std::string(flags.status().message());
  }

  const std::string path_ = testing::TempDir() + "flags_test_request";
};

TEST_F(FlagsTest, EveryFlagReachesItsOption) {
  const auto flags =
      ParseFlags({"--address",  "[::1]:80", "--path",     "/a/b",     "--connections", "2",
                  "--streams",  "3",        "--timeout",  "0.5",      "--metadata",    "k=v=w",
                  "--rate",     "1.5",      "--arrivals", "constant", "--seed",        "9",
                  "--requests", "7",        "--duration", "2",        "--warmup",      "0.25",
                  "--patience", "4",        "--request",  path_,      "--expect",      path_,
                  "--ids",      "--json",   "out"});
  ASSERT_TRUE(flags.ok()) << flags.status().ToString();
  const Flags& got = flags.value();
  EXPECT_EQ(got.run.fleet.target.host, "::1");
  EXPECT_EQ(got.run.fleet.target.port, 80);
  EXPECT_EQ(got.run.fleet.target.path, "/a/b");
  EXPECT_EQ(got.run.fleet.target.timeout_ms, 500);
  EXPECT_EQ(got.run.fleet.target.metadata[0], (std::pair<std::string, std::string>("k", "v=w")));
  EXPECT_EQ(got.run.fleet.connections, 2u);
  EXPECT_EQ(got.run.fleet.streams, 3u);
  EXPECT_EQ(got.run.pacer.rate, 1.5);
  EXPECT_EQ(got.run.pacer.arrivals, Arrivals::kConstant);
  EXPECT_EQ(got.run.pacer.seed, 9u);
  EXPECT_EQ(got.run.pacer.requests, 7u);
  EXPECT_EQ(got.run.pacer.duration_ns, 2'000'000'000);
  EXPECT_EQ(got.run.pacer.warmup_ns, 250'000'000);
  EXPECT_EQ(got.run.patience_ns, 4'000'000'000);
  EXPECT_TRUE(got.workload.streaming);
  EXPECT_TRUE(got.workload.unique_ids);
  EXPECT_EQ(got.samples[0].request, "bytes");
  EXPECT_EQ(got.samples[0].expected, "bytes");
  EXPECT_EQ(got.json, "out");
}

TEST_F(FlagsTest, PathFollowsFromTheKindOfCall) {
  const std::vector<std::string> unary = {"--address", "h:1", "--request", path_};
  EXPECT_EQ(ParseFlags(unary)->workload.path, "/inference.GRPCInferenceService/ModelInfer");
  std::vector<std::string> stream = unary;
  stream.insert(stream.end(), {"--streams", "1"});
  EXPECT_EQ(ParseFlags(stream)->workload.path, "/inference.GRPCInferenceService/ModelStreamInfer");
}

TEST_F(FlagsTest, ResponsesOfARequestAreCounted) {
  const auto flags = ParseFlags({"--address", "h:1", "--request", path_, "--streams", "2",
                                 "--concurrency", "2", "--responses", "50"});
  ASSERT_TRUE(flags.ok()) << flags.status().ToString();
  EXPECT_EQ(flags->run.fleet.target.responses, 50u);
}

TEST_F(FlagsTest, WhatWillNotDoIsNamed) {
  EXPECT_THAT(Refusal({"--fast"}), HasSubstr("no flag --fast"));
  EXPECT_THAT(Refusal({"--rate"}), HasSubstr("--rate needs a value"));
  EXPECT_THAT(Refusal({"--rate", "x"}), HasSubstr("--rate: expected a number"));
  EXPECT_THAT(Refusal({"--rate", "nan"}), HasSubstr("--rate: expected a number"));
  EXPECT_THAT(Refusal({"--connections", "0"}), HasSubstr("--connections: expected a number"));
  EXPECT_THAT(Refusal({"--address", "nowhere"}), HasSubstr("HOST:PORT"));
  EXPECT_THAT(Refusal({"--address", "h:70000"}), HasSubstr("--address"));
  EXPECT_THAT(Refusal({"--arrivals", "never"}), HasSubstr("poisson or constant"));
  EXPECT_THAT(Refusal({"--metadata", "=v"}), HasSubstr("KEY=VALUE"));
  EXPECT_THAT(Refusal({"--request", path_ + "/no"}), HasSubstr("cannot be read"));
  EXPECT_THAT(Refusal({"--rate", "5", "--concurrency", "2"}), HasSubstr("exclude"));
  EXPECT_THAT(Refusal({"--responses", "2"}), HasSubstr("needs --streams"));
  EXPECT_THAT(Refusal({"--responses", "2", "--streams", "1", "--concurrency", "2"}),
              HasSubstr("a --concurrency of at most"));
  EXPECT_EQ(Refusal({}), "");
  EXPECT_THAT(std::string(ParseFlags({"--address", "h:1"}).status().message()),
              HasSubstr("--request is missing"));
  EXPECT_THAT(std::string(ParseFlags({"--expect", path_}).status().message()),
              HasSubstr("behind a --request"));
}

TEST_F(FlagsTest, HelpNamesEveryFlag) {
  EXPECT_TRUE(ParseFlags({"--help"})->help);
  EXPECT_THAT(FlagsHelp(), HasSubstr("--expect-request"));
}

}  // namespace
}  // namespace penstock::load
