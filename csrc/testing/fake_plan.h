// FakePlanRuntime: TensorRT's runtime for fake GPUs, and for real ones (row_device.h). Its plans
// compute what FakeGpuEngine does, y = 2x + b + the row's number and n = the row's number, in the
// memory that they are given, and refuse what TensorRT would: shapes outside of the profile, addresses
// that were not set.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "backends/tensorrt/plan.h"
#include "testing/fake_gpu.h"
#include "testing/row_work.h"

namespace penstock {

struct FakeProfile {
  int64_t least = 1, likely = 8, greatest = 8;  // rows
  int64_t least_width = 0, greatest_width = 0;  // of open widths
};

struct FakePlanOptions {
  int64_t width = 16;  // floats in a row of x and y; -1 = open, as the profiles say
  int64_t rows = -1;   // fixed where it is positive
  std::vector<FakeProfile> profiles = {{}};
  size_t context_bytes = 256;                   // that a run writes to: two at once would be a race
  bool has_unknown_output = false;              // n's shape depends on what x holds
  std::optional<float> trap_at = {};            // see RowWork
  std::vector<tensorrt::PlanTensor> more = {};  // tensors besides x, b, y and n
};

// What it reads: "fake-plan", then words; others than these mean nothing.
//
//   host-code         it has some
//   width=37632       floats in a row of x and y
//   rows=32           at most
//   trap_at=-4        a row that begins with it traps the kernel: the GPU is lost
//   context_mb=1024   a run works in so much memory, all of which it writes to
inline constexpr const char* kFakePlanBytes = "fake-plan";

// Threading: thread-safe.
// Ownership: borrows the GPU.
class FakePlanRuntime final : public tensorrt::PlanRuntime {
 public:
  FakePlanRuntime(RowLaunch launch, FakePlanOptions options)
      : launch_(std::move(launch)), options_(std::move(options)) {}
  FakePlanRuntime(FakeGpu& gpu, FakePlanOptions options)
      : FakePlanRuntime(LaunchOn(gpu), std::move(options)) {}

  std::string_view description() const override { return "FakeRT 11.1.0.106"; }
  Result<std::unique_ptr<tensorrt::Plan>> Read(std::span<const uint8_t> bytes,
                                               bool allows_host_code) override;

  // Enqueue fails at its nth call from now on (1 = the next), in its own words.
  void FailEnqueue(int nth) { enqueues_to_failure_.store(nth); }
  int plans() const { return plans_.load(); }        // read so far
  int contexts() const { return contexts_.load(); }  // made so far, those to measure included
  int live_contexts() const { return live_contexts_.load(); }

 private:
  friend class FakePlan;
  friend class FakePlanContext;

  const RowLaunch launch_;
  const FakePlanOptions options_;  // of a plan that has no words for it
  std::atomic<int> enqueues_to_failure_{0};
  std::atomic<int> plans_{0}, contexts_{0}, live_contexts_{0};
};

}  // namespace penstock
