// SessionPlan: sessions of ONNX Runtime as a plan, which the tensorrt backend's lanes run.

#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backends/onnxruntime/device_session.h"
#include "backends/onnxruntime/session_ranges.h"
#include "backends/onnxruntime/session_signature.h"
#include "backends/tensorrt/device_table.h"
#include "backends/tensorrt/plan.h"
#include "base/mutex.h"
#include "base/status.h"
#include "gpu/gpu_handles.h"

namespace penstock::ort {

struct SessionPlanOptions {
  std::string label;        // "model 'bert' version 1", the start of messages
  std::string engine = {};  // what computes, for messages: "CUDAExecutionProvider"
  RangeSettings ranges = {};
  bool row_changes_cost = false;  // as gpu::DeviceEngine's
};

// One session, with weights of its own, for each lane: the engine binds a session to one stream for
// good. The first one also says what the model's tensors are.
//
// There is one profile. Inputs with a default (weights that may be overridden) keep it: they are no
// tensors of the plan.
//
// Threading: thread-safe.
// Ownership: owns streams, sessions and their opener; borrows the device.
class SessionPlan final : public tensorrt::Plan {
 public:
  // UNIMPLEMENTED for tensors that lanes cannot have (BYTES, outputs whose shape does not follow from
  // the inputs'); else as InputRanges and the opener.
  static Result<std::unique_ptr<tensorrt::Plan>> Create(const tensorrt::DeviceTable::Found& found,
                                                        std::unique_ptr<SessionOpener> opener,
                                                        SessionPlanOptions options);

  const std::vector<tensorrt::PlanTensor>& tensors() const override { return tensors_; }
  size_t profiles() const override { return 1; }
  size_t ContextBytes(size_t) const override { return 0; }  // the engine's arena has it
  // The engine releases staging memory by functions of the host, which a graph would call at each
  // launch.
  bool can_be_captured() const override { return false; }
  bool row_changes_cost() const override { return options_.row_changes_cost; }
  std::string_view engine() const override { return options_.engine; }
  Result<gpu::Stream> ComputeStream() override EXCLUDES(mu_);
  // Where `stream` is none of ComputeStream's it knows its shapes, and does not run.
  Result<std::unique_ptr<tensorrt::PlanContext>> CreateContext(
      size_t profile, const tensorrt::ContextMemory& memory, gpu::Stream stream) override
      EXCLUDES(mu_);

 private:
  friend class SessionContext;

  struct OfStream {
    gpu::OwnedStream stream;
    std::unique_ptr<DeviceSession> session;  // goes first
  };

  SessionPlan(const tensorrt::DeviceTable::Found& found, std::unique_ptr<SessionOpener> opener,
              SessionPlanOptions options);

  Status OpenOne() REQUIRES(mu_);
  Status AddTensors();
  Status AddInput(size_t input, const tensorrt::ProfileRange& range);
  Status AddOutput(size_t output);

  // Constant after Create.
  const tensorrt::DeviceTable::Found found_;
  const std::unique_ptr<SessionOpener> opener_;
  const SessionPlanOptions options_;
  SessionSignature signature_;
  std::vector<tensorrt::PlanTensor> tensors_;
  std::vector<size_t> places_;  // of each tensor in the signature's inputs or outputs

  Mutex mu_;
  // Guarded by mu_.
  std::vector<OfStream> opened_ GUARDED_BY(mu_);
  size_t given_ GUARDED_BY(mu_) = 0;  // to lanes, the first ones
};

}  // namespace penstock::ort
