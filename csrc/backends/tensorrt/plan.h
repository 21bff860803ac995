// Plan: a model on a device as TensorRT's runtime has it, as an interface.
//
// nvinfer_runtime.h is TensorRT's own, ONNX Runtime's sessions are another
// (backends/onnxruntime/session_plan.h); tests have one on the fake GPU (csrc/testing/fake_plan.h).
// Everything that decides something is above it: plan_layout.h, plan_engine.h, plan_model.h.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "gpu/gpu_api.h"
#include "tensor/dtype.h"
#include "tensor/shape.h"

namespace penstock::tensorrt {

// The shapes of an input that an optimisation profile allows, each as a whole.
struct ProfileRange {
  Shape least, likely, greatest;
};

// An input or output as the plan declares it.
struct PlanTensor {
  std::string name;
  DataType dtype = DataType::kInvalid;  // kInvalid: one that the protocol does not have
  std::string dtype_name = {};          // TensorRT's, for messages
  bool is_input = false;
  Shape dims;                               // -1: open
  bool is_read_by_host = false;             // a shape tensor, or another that the plan wants there
  bool stays_on_host = false;               // as gpu::DeviceTensor's
  bool is_linear = true;                    // row-major, in every profile; else TensorRT's own
  std::string aliased_input = {};           // outputs: that whose memory it has to be; "" = none
  std::vector<ProfileRange> profiles = {};  // inputs: by profile
};

// One execution, in one profile, of a plan.
// Threading: thread-compatible.
// Ownership: goes before its plan; borrows its memory.
class PlanContext {
 public:
  virtual ~PlanContext() = default;

  // `tensor` counts in Plan::tensors(). Addresses are aligned to 256 bytes.
  virtual Status SetAddress(size_t tensor, void* data) = 0;
  virtual Status SetInputShape(size_t tensor, const Shape& shape) = 0;
  // Of an output, for the inputs' shapes as they are set; -1 where it depends on what they hold.
  virtual Result<Shape> OutputShape(size_t tensor) = 0;
  // Allocates nothing, so that it can be captured, from the second time with one shape on.
  virtual Status Enqueue(gpu::Stream stream) = 0;
};

struct ContextMemory {
  void* data = nullptr;
  size_t size_bytes = 0;
};

// Threading: thread-safe.
class Plan {
 public:
  virtual ~Plan() = default;

  virtual const std::vector<PlanTensor>& tensors() const = 0;
  // At least 1: a plan whose shapes are all fixed has one without ranges.
  virtual size_t profiles() const = 0;
  // Device memory that a context of the profile works in, at its greatest shapes.
  virtual size_t ContextBytes(size_t profile) const = 0;
  // What computes, where it is not the backend itself: "CUDAExecutionProvider".
  virtual std::string_view engine() const { return ""; }
  // Whether what its contexts enqueue may be captured into a graph.
  virtual bool can_be_captured() const { return true; }
  // As gpu::DeviceEngine's, as far as the plan knows.
  virtual bool row_changes_cost() const { return false; }
  // As gpu::DeviceEngine's.
  virtual Result<gpu::Stream> ComputeStream() { return gpu::Stream{nullptr}; }
  // A context that works in `memory`, which no other one may while it runs. `stream`: where its
  // preparation may be enqueued.
  virtual Result<std::unique_ptr<PlanContext>> CreateContext(size_t profile,
                                                             const ContextMemory& memory,
                                                             gpu::Stream stream) = 0;
};

// Threading: thread-safe.
// Ownership: outlives its plans.
class PlanRuntime {
 public:
  virtual ~PlanRuntime() = default;

  virtual std::string_view description() const = 0;  // "TensorRT 11.1.0.106"
  // Reads a plan onto this thread's current device. INVALID_ARGUMENT where it is none, or one of
  // another version or device: with the library's words. Code in it that the host would run is
  // refused unless `allows_host_code`.
  // Blocking: copies weights to the device.
  virtual Result<std::unique_ptr<Plan>> Read(std::span<const uint8_t> bytes,
                                             bool allows_host_code) = 0;
};

}  // namespace penstock::tensorrt
