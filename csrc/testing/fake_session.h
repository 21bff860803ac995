// FakeSessionOpener: ONNX Runtime's sessions for the fake GPU. They compute what FakeGpuEngine does,
// y = 2x + b + the row's number and n = the row's number, on the stream that they were opened for.

#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/onnxruntime/device_session.h"
#include "testing/fake_clock.h"
#include "testing/fake_gpu.h"

namespace penstock {

// Whether b is read by the host, as what the engine's CPU kernels take: what is bound of it in device
// memory is copied then and there, what is bound in the host's is read by each run. And whether the
// signature says so.
enum class HostInput { kNone, kTold, kUntold };

struct FakeSessionOptions {
  std::string x = "x";                       // its name
  int64_t width = 4;                         // floats in a row of x and y; -1 = open
  int64_t rows = -1;                         // fixed where it is positive
  bool has_unknown_output = false;           // n's shape does not follow from the inputs'
  std::vector<TensorSpec> more_inputs = {};  // besides x and b
  HostInput host_input = HostInput::kNone;
  // That runs move, where it is there: by 1 us for each row, and by 20 where the session's run before
  // had another number of rows, as what the engine prepares for the shape of its last run only.
  FakeClock* clock = nullptr;
};

// What sessions did, and what they are told to do; outlives them.
struct FakeSessionLog {
  // A run fails at its nth call from now on (1 = the next), in the engine's words; as does an open.
  void FailRun(int nth, std::string words = "the session will not") {
    failure = std::move(words);
    runs_to_failure.store(nth);
  }
  void FailOpen(int nth) { opens_to_failure.store(nth); }

  std::string failure;  // of the run that fails
  std::atomic<int> runs_to_failure{0}, opens_to_failure{0};
  std::atomic<int> opened{0}, live{0};
  std::atomic<int> input_binds{0}, output_binds{0};
  std::atomic<int> host_copies{0};  // of what was bound, from device memory
  std::atomic<int> row_changes{0};  // runs with other rows than the session's run before

  // Runs whose staging memory is kept, as the engine keeps it from 1.30 on: by session and thread.
  std::atomic<int> most_kept{0};  // of one thread's and one session's, at any time
  std::atomic<int> waits{0};      // runs that waited for their end

  // Told of x's shape by each run, on its thread. Set before sessions run.
  std::function<void(const Shape& x)> on_run = nullptr;
};

// Threading: thread-compatible.
// Ownership: borrows the GPU and the log.
class FakeSessionOpener final : public ort::SessionOpener {
 public:
  FakeSessionOpener(FakeGpu& gpu, FakeSessionLog& log, FakeSessionOptions options)
      : gpu_(gpu), log_(log), options_(std::move(options)) {}

  Result<std::unique_ptr<ort::DeviceSession>> Open(int device, gpu::Stream stream) override;

 private:
  FakeGpu& gpu_;
  FakeSessionLog& log_;
  const FakeSessionOptions options_;
};

}  // namespace penstock
