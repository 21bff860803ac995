#include "backends/registry.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "backend_under_test.h"
#include "onnx_writer.h"
#include "testing/fixture_backend.h"

namespace penstock {
namespace {

using testing::HasSubstr;

TEST(BackendRegistryTest, PlugIn_IsOpenedOnceAndKept) {
  BackendRegistry registry({"/nonexistent", PENSTOCK_FIXTURE_DIRECTORY});
  const auto first = registry.Get("fixture");
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_EQ((*first)->description(), "Fixture 1");
  const auto second = registry.Get("fixture");
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(*second, *first);
}

TEST(BackendRegistryTest, RegisteredBackend_IsFoundByName) {
  BackendRegistry registry({});
  registry.Register("mine", MakeFixtureBackend());
  EXPECT_TRUE(registry.Get("mine").ok());
}

TEST(BackendRegistryTest, PlugInThatTakesLongToOpen_HoldsNoOtherName) {
  const TempDir directory;
  const std::string fifo = directory.Path("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  BackendRegistry registry({PENSTOCK_FIXTURE_DIRECTORY});
  registry.SetOptions("fixture", {{"fifo", fifo}});
  Result<Backend*> first = NotFound("not yet");
  std::thread opening([&] { first = registry.Get("fixture"); });
  const int writer = open(fifo.c_str(), O_WRONLY | O_CLOEXEC);  // returns when it is being opened
  registry.Register("mine", MakeFixtureBackend());
  EXPECT_TRUE(registry.Get("mine").ok());
  EXPECT_EQ(registry.Get("tensorflow").status().code(), StatusCode::kNotFound);
  close(writer);
  const auto second = registry.Get("fixture");  // waits for the first, and opens nothing itself
  opening.join();
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(*first, *second);
}

TEST(BackendRegistryTest, UnknownName_IsNotFound) {
  BackendRegistry registry({PENSTOCK_FIXTURE_DIRECTORY});
  const auto backend = registry.Get("tensorflow");
  ASSERT_FALSE(backend.ok());
  EXPECT_EQ(backend.status().code(), StatusCode::kNotFound);
  EXPECT_THAT(std::string(backend.status().message()), HasSubstr("unknown backend 'tensorflow'"));
}

TEST(BackendRegistryTest, FileThatIsNoLibrary_FailsThePrecondition) {
  const TempDir directory;
  OnnxWriter::WriteFile(directory.Path("libpenstock_broken.so"), "not a library");
  BackendRegistry registry({directory.path()});
  const auto backend = registry.Get("broken");
  ASSERT_FALSE(backend.ok());
  EXPECT_EQ(backend.status().code(), StatusCode::kFailedPrecondition);
}

// What servers of tests rest on, here and on a GPU.
TEST(FixturePlugInTest, Plan_RunsAsItsOptionSaysAndHasMemoryPinned) {
  const TempDir directory;
  OnnxWriter::WriteFile(directory.Path("model.plan"), "fake-plan");
  LoadOptions options;
  options.model_name = "m";
  options.path = directory.Path("model.plan");
  options.parameters = {{"plan", "1"}};
  std::vector<uint8_t> memory(4096);
  for (const char* const api : {"runtime", "driver"}) {
    BackendRegistry registry({PENSTOCK_FIXTURE_DIRECTORY});
    registry.SetOptions("fixture", {{"api", api}});
    const auto backend = registry.Get("fixture");
    ASSERT_TRUE(backend.ok()) << backend.status().ToString();
    const auto model = (*backend)->Load(options);
    EXPECT_EQ(model.ok(), std::string(api) == "runtime") << model.status().ToString();
    EXPECT_EQ((*backend)->PinHostMemory(memory) != nullptr, model.ok());
    if (model.ok()) continue;
    EXPECT_THAT(model.status().ToString(), HasSubstr("there is no driver of fake GPUs"));
  }
}

}  // namespace
}  // namespace penstock
