// DeviceEngine: what a lane runs. TensorRT, our own kernels, or a test's few lines.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "gpu/gpu_api.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace penstock::gpu {

// An input or output: rows one behind the other.
struct DeviceTensor {
  std::string name;
  DataType dtype = DataType::kInvalid;
  size_t row_bytes = 0;  // of each row; where an engine leaves shapes open, at most
  // An input that contexts read in the host's memory, from Enqueue on: no graph can be made of them.
  bool stays_on_host = false;
};

// A batch of an engine that leaves shapes open: what its tensors are this time.
struct ShapedBatch {
  uint32_t rows = 0;
  std::vector<Shape> inputs;  // in the engine's order, whole: with what dimension rows are
  std::vector<size_t> input_bytes;
  std::vector<Shape> outputs = {};  // written by DeviceContext::EnqueueShaped
  std::vector<size_t> output_bytes = {};
};

// Where the tensors of a context lie, in the engine's order, with room for max_rows(): in device
// memory, or in pinned memory what stays on the host.
struct Bindings {
  std::vector<void*> inputs, outputs;
};

// One execution of an engine, bound to its memory for good.
// Threading: thread-compatible; two contexts may be used at once.
class DeviceContext {
 public:
  virtual ~DeviceContext() = default;

  // Enqueues the computation of the first `rows` rows. Waits for nothing and allocates nothing
  // where it can be captured into a graph; what it enqueues depends on `rows` alone. Not OK: part of
  // it may have been enqueued.
  virtual Status Enqueue(Stream stream, uint32_t rows) = 0;

  // Enqueues a batch of these shapes and says what its outputs are, none of them larger than its
  // place. INVALID_ARGUMENT for shapes that the engine does not run.
  virtual Status EnqueueShaped(Stream stream, ShapedBatch& batch) {
    (void)stream, (void)batch;
    return Unimplemented("this engine leaves no shape open");
  }
};

// A model on a device, shared by all of its lanes.
// Threading: thread-safe.
// Ownership: outlives its contexts.
class DeviceEngine {
 public:
  virtual ~DeviceEngine() = default;
  virtual const std::string& name() const = 0;  // the model's, for messages
  virtual const std::vector<DeviceTensor>& inputs() const = 0;
  virtual const std::vector<DeviceTensor>& outputs() const = 0;
  virtual uint32_t max_rows() const = 0;
  // False: it runs the batch sizes that graphs are made for, and no others.
  virtual bool takes_any_rows() const = 0;
  // True: its contexts on one stream together remember what they prepared for the rows of their last
  // run only, so that it is measured what other rows cost, and batches may be run with rows behind
  // them, which do its answers no harm (SteadyRows). Of one that takes any rows, and leaves no shape
  // open.
  virtual bool row_changes_cost() const { return false; }
  // The stream that a new lane's contexts compute on, where the engine is bound to streams of its own:
  // another one for each call, which is the engine's until it goes. Null: the lane makes one.
  virtual Result<Stream> ComputeStream() { return Stream{nullptr}; }
  // A context's rows where batches of any size come, up to max_rows().
  static constexpr uint32_t kAnyRows = 0;
  // A context that will run `rows` rows and no others, as a graph does, or kAnyRows. `stream`: where it
  // may enqueue its preparation.
  virtual Result<std::unique_ptr<DeviceContext>> CreateContext(const Bindings& bindings,
                                                               uint32_t rows, Stream stream) = 0;
};

}  // namespace penstock::gpu
