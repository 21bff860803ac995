// The access log without memory: its thread goes on, and what has no line is counted.
//
// A program of its own, for its `operator new` fails when it is told to.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>

#include "base/log.h"
#include "transport/access_log.h"

namespace {

std::atomic<bool> g_is_short{false};
thread_local bool t_is_spared = false;

void* Allocate(size_t size) {
  void* const found = g_is_short && !t_is_spared ? nullptr : std::malloc(size);
  return found != nullptr ? found : throw std::bad_alloc();
}

}  // namespace

void* operator new(size_t size) { return Allocate(size); }
void* operator new[](size_t size) { return Allocate(size); }
void* operator new(size_t size, const std::nothrow_t& /*tag*/) noexcept {
  return std::malloc(size);
}
void* operator new[](size_t size, const std::nothrow_t& /*tag*/) noexcept {
  return std::malloc(size);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t /*size*/) noexcept { std::free(p); }
void operator delete[](void* p, size_t /*size*/) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t& /*tag*/) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t& /*tag*/) noexcept { std::free(p); }

namespace penstock {
namespace {

using testing::EndsWith;
using testing::HasSubstr;

// Until it goes, no thread but its own has memory.
class NoMemoryForOthers {
 public:
  NoMemoryForOthers() {
    t_is_spared = true;
    g_is_short = true;
  }
  ~NoMemoryForOthers() { g_is_short = false; }
  NoMemoryForOthers(const NoMemoryForOthers&) = delete;
  NoMemoryForOthers& operator=(const NoMemoryForOthers&) = delete;
};

AccessRecord Record(std::string_view model) {
  AccessRecord record;
  record.method.Set("/inference.GRPCInferenceService/ModelInfer");
  record.model.Set(model);
  return record;
}

void PushAndAwait(AccessLog& log, uint64_t dropped) {
  log.Push(Record("lost"));
  while (log.dropped() < dropped) std::this_thread::yield();
}

TEST(AccessLogMemoryTest, ThreadSurvivesWithoutMemoryAndItsLostLinesAreCountedAndTold) {
  AccessLog log(Clock::System(), /*capacity=*/8);
  testing::internal::CaptureStderr();
  log.Start();
  {
    const NoMemoryForOthers none;
    PushAndAwait(log, 1);
    PushAndAwait(log, 2);
  }
  log.Push(Record("kept"));
  log.Stop();
  const std::string lines = testing::internal::GetCapturedStderr();
  EXPECT_EQ(log.dropped(), 2U);
  EXPECT_THAT(lines, HasSubstr("model=kept "));
  EXPECT_THAT(lines, HasSubstr("WARNING penstock.access: 2 calls are not in the access log"));
}

TEST(AccessLogMemoryTest, LogWithoutMemory_SaysSo) {
  testing::internal::CaptureStderr();
  {
    const NoMemoryForOthers none;
    // Made here: a thread that has no memory can make nothing.
    std::thread([] { Log(LogLevel::kError, "engine", "a failure of which nobody hears"); }).join();
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              EndsWith("no memory for a line of the log\n"));
}

}  // namespace
}  // namespace penstock
