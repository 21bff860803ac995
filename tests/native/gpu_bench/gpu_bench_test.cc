// bench/gpu's measurements, each whole and on a fake GPU: what they print, and that they leave nothing.
#include "gpu_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <sstream>

#include "base/strcat.h"
#include "testing/fake_gpu.h"
#include "testing/fake_gpu_engine.h"
#include "testing/quiet_log.h"

namespace penstock::gpu {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// What the kernels read and write, without what they make of it.
class FakeKernels final : public Kernels {
 public:
  explicit FakeKernels(FakeGpu& gpu) : gpu_(gpu) {}

  Error Gather(void* to, const void* const* from, uint32_t rows, size_t row_bytes,
               Stream stream) override {
    FakeWork work = Writing(to, rows * row_bytes);
    for (uint32_t i = 0; i < rows; ++i) work.reads.push_back({from[i], row_bytes});
    return gpu_.Launch(stream, work);
  }
  Error Normalise(void* to, const void* from, uint32_t images, Stream stream) override {
    FakeWork work = Writing(to, images * 2 * kImageBytes);
    work.reads = {{from, images * kImageBytes}};
    return gpu_.Launch(stream, work);
  }
  Error CastToFp16(void* to, const void* from, size_t count, Stream stream) override {
    FakeWork work = Writing(to, 2 * count);
    work.reads = {{from, 4 * count}};
    return gpu_.Launch(stream, work);
  }

 private:
  static FakeWork Writing(void* to, size_t bytes) {
    FakeWork work;
    work.writes = {{to, bytes}};
    work.run = [=] {
      std::memset(to, 1, bytes);
      return Error::kSuccess;
    };
    return work;
  }

  FakeGpu& gpu_;
};

// The lines that `measure` prints.
std::vector<std::string> Lines(const std::function<void()>& measure) {
  ::testing::internal::CaptureStdout();
  measure();
  std::istringstream printed(::testing::internal::GetCapturedStdout());
  std::vector<std::string> lines;
  for (std::string line; std::getline(printed, line);) lines.push_back(line);
  return lines;
}

class GpuBenchTest : public ::testing::Test {
 protected:
  ~GpuBenchTest() override {
    EXPECT_THAT(gpu_.races(), IsEmpty());
    EXPECT_EQ(gpu_.live_objects(), 0U);
  }

  FakeGpu gpu_;
  FakeKernels kernels_{gpu_};
};

TEST_F(GpuBenchTest, Copies_AreOfEveryWay) {
  const auto lines = Lines([&] { MeasureCopies(gpu_, kernels_, 2); });
  EXPECT_THAT(lines, AllOf(SizeIs(7), Each(HasSubstr("\"unit\": \"GB/s\""))));
  EXPECT_EQ(gpu_.pageable_copies(), 3 * static_cast<int>(kImages));  // two rounds, and one before
}

TEST_F(GpuBenchTest, Launches_AreOfKernelsAGraphAndAnEvent) {
  const auto lines = Lines([&] { MeasureLaunches(gpu_, kernels_, 2); });
  EXPECT_THAT(lines, AllOf(SizeIs(3), Each(HasSubstr("\"unit\": \"us\""))));
}

TEST_F(GpuBenchTest, Lanes_AreHeldAgainstTheBareLoop) {
  const QuietLog quiet;
  FakeGpuEngine engine(gpu_, {.max_rows = 4, .width = 16});
  const auto lines = Lines([&] { MeasureLanes(gpu_, engine, 1, 8); });
  // 4 numbers of lanes, with and without graphs, of 3 sizes of batches: through lanes and bare
  ASSERT_THAT(lines, SizeIs(4 * 2 * 3 * 2 + 1));
  for (const char* table : {"lanes: images in and out", "bare loop: images in and out"}) {
    for (const char* what : {"1 lanes, no graphs, batches of 1", "4 lanes, graphs, batches of 4"}) {
      EXPECT_THAT(lines, Contains(HasSubstr(StrCat(table, "\", \"what\": \"", what, "\""))));
    }
  }
  EXPECT_THAT(lines.back(), HasSubstr("rows computed for nobody, batches of 1 to 4"));
  EXPECT_EQ(engine.live_contexts(), 0);
}

TEST_F(GpuBenchTest, EngineThatFails_EndsTheProgram) {
  FakeGpuEngine engine(gpu_, {});
  engine.FailEnqueue(1);
  EXPECT_EXIT(MeasureLanes(gpu_, engine, 1, 8), ::testing::ExitedWithCode(1), "gpu_bench: ");
}

}  // namespace
}  // namespace penstock::gpu
