// DeviceSession: the part of ONNX Runtime that runs a model on a GPU, as an interface.
//
// ort_device_session.h is the engine's own; tests have one on the fake GPU
// (csrc/testing/fake_session.h). What decides something is above it: session_plan.h, and what the
// tensorrt backend's plans have in common with it (backends/tensorrt/plan_model.h).

#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "backends/onnxruntime/run_turns.h"
#include "backends/onnxruntime/session_signature.h"
#include "base/status.h"
#include "gpu/gpu_api.h"
#include "tensor/shape.h"

namespace penstock::ort {

// Tensors in device memory that a session runs on: the engine's IoBinding.
// Threading: thread-compatible.
// Ownership: goes before its session; borrows the memory.
class SessionBinding {
 public:
  explicit SessionBinding(RunTurns& turns) : turns_(turns) {}
  virtual ~SessionBinding() = default;

  // In the order of the session's signature. An input that the signature has on the host is given in
  // the host's memory, which stays as it is until the run is over on the stream; it must be bound for
  // each run: what the engine does not compute where it lies it copies when it is bound, not when it
  // runs. An output stays bound.
  virtual Status BindInput(size_t input, void* data, const Shape& shape) = 0;
  virtual Status BindOutput(size_t output, void* data, const Shape& shape) = 0;
  // Enqueues a run on the session's stream. Not OK: part of it may have been enqueued.
  // Blocking: for what a model computes on the host, in between; and now and then until the device is
  // through with it (RunTurns).
  Status Run() { return RunOnce(turns_.Next()); }

 private:
  virtual Status RunOnce(RunEnd end) = 0;

  RunTurns& turns_;  // the session's
};

// A model's file, opened on one device; all that it computes there it does on one stream.
// Threading: its bindings run one at a time.
// Ownership: borrows the stream, which outlives it.
class DeviceSession {
 public:
  virtual ~DeviceSession() = default;

  virtual const SessionSignature& signature() const = 0;
  virtual Result<std::unique_ptr<SessionBinding>> Bind() = 0;

 protected:
  RunTurns& turns() { return turns_; }

 private:
  RunTurns turns_;
};

// Opens a model's file, once for each stream.
// Threading: thread-compatible.
class SessionOpener {
 public:
  virtual ~SessionOpener() = default;

  // REQUIRES: the device is this thread's.
  // Blocking: reads the file, copies weights to the device.
  virtual Result<std::unique_ptr<DeviceSession>> Open(int device, gpu::Stream stream) = 0;
};

}  // namespace penstock::ort
