#include "backends/onnxruntime/session_plan.h"

#include <utility>

#include "base/strcat.h"
#include "gpu/device.h"

namespace penstock::ort {

using tensorrt::ContextMemory;
using tensorrt::PlanTensor;
using tensorrt::ProfileRange;

// Threading: thread-compatible.
// Ownership: borrows the plan.
class SessionContext final : public tensorrt::PlanContext {
 public:
  SessionContext(const SessionPlan& plan, std::unique_ptr<SessionBinding> binding)
      : plan_(plan),
        binding_(std::move(binding)),
        addresses_(plan.tensors_.size()),
        shapes_(plan.signature_.signature.inputs.size()) {}

  Status SetAddress(size_t tensor, void* data) override {
    addresses_.at(tensor) = data;
    has_outputs_bound_ = false;
    return Status::Ok();
  }
  Status SetInputShape(size_t tensor, const Shape& shape) override {
    Shape& set = shapes_.at(plan_.places_.at(tensor));
    if (set == shape) return Status::Ok();
    set = shape;
    has_outputs_bound_ = false;
    return Status::Ok();
  }
  Result<Shape> OutputShape(size_t tensor) override;
  Status Enqueue(gpu::Stream stream) override;

 private:
  Status Bind();

  const SessionPlan& plan_;
  const std::unique_ptr<SessionBinding> binding_;  // null: it does not run
  std::vector<void*> addresses_;
  std::vector<Shape> shapes_;  // in the order of the signature's inputs
  bool has_outputs_bound_ = false;
};

Result<Shape> SessionContext::OutputShape(size_t tensor) {
  Shape shape;
  for (const OutputDim& dim : plan_.signature_.output_plans.at(plan_.places_.at(tensor)).dims) {
    if (dim.source == OutputDim::Source::kFixed) {
      shape.Append(dim.size);
      continue;
    }
    const Shape& input = shapes_.at(dim.input);
    if (dim.axis >= input.rank()) {
      return Internal(StrCat(plan_.options_.label, ": input '",
                             plan_.signature_.signature.inputs[dim.input].name,
                             "' has no shape yet"));
    }
    shape.Append(input[dim.axis]);
  }
  return shape;
}

Status SessionContext::Bind() {
  for (size_t i = 0; i < addresses_.size(); ++i) {
    const PlanTensor& tensor = plan_.tensors_[i];
    if (addresses_[i] == nullptr) {
      return Internal(StrCat(plan_.options_.label, ": '", tensor.name, "' has no address"));
    }
    const size_t place = plan_.places_[i];
    if (tensor.is_input) {
      PENSTOCK_RETURN_IF_ERROR(binding_->BindInput(place, addresses_[i], shapes_.at(place)));
      continue;
    }
    if (has_outputs_bound_) continue;
    PENSTOCK_ASSIGN_OR_RETURN(const Shape shape, OutputShape(i));
    PENSTOCK_RETURN_IF_ERROR(binding_->BindOutput(place, addresses_[i], shape));
  }
  return Status::Ok();
}

Status SessionContext::Enqueue(gpu::Stream) {
  if (binding_ == nullptr) {
    return Internal(StrCat(plan_.options_.label, ": no session computes on this stream"));
  }
  PENSTOCK_RETURN_IF_ERROR(Bind());
  has_outputs_bound_ = true;
  return binding_->Run();
}

Result<std::unique_ptr<tensorrt::Plan>> SessionPlan::Create(
    const tensorrt::DeviceTable::Found& found, std::unique_ptr<SessionOpener> opener,
    SessionPlanOptions options) {
  std::unique_ptr<SessionPlan> plan(new SessionPlan(found, std::move(opener), std::move(options)));
  {
    MutexLock lock(plan->mu_);
    PENSTOCK_RETURN_IF_ERROR(plan->OpenOne());
    plan->signature_ = plan->opened_.front().session->signature();
  }
  PENSTOCK_RETURN_IF_ERROR(plan->AddTensors());
  return std::unique_ptr<tensorrt::Plan>(std::move(plan));
}

SessionPlan::SessionPlan(const tensorrt::DeviceTable::Found& found,
                         std::unique_ptr<SessionOpener> opener, SessionPlanOptions options)
    : found_(found), opener_(std::move(opener)), options_(std::move(options)) {}

Status SessionPlan::OpenOne() {
  gpu::Device& device = *found_.device;
  gpu::Stream handle = nullptr;
  PENSTOCK_RETURN_IF_ERROR(device.health().Check(device.api().CreateStream(&handle),
                                                 StrCat("create a stream for ", options_.label)));
  gpu::OwnedStream stream(device.api(), handle);
  PENSTOCK_ASSIGN_OR_RETURN(auto session, opener_->Open(found_.ordinal, handle));
  opened_.push_back({std::move(stream), std::move(session)});
  return Status::Ok();
}

Status SessionPlan::AddTensors() {
  const ModelSignature& signature = signature_.signature;
  PENSTOCK_ASSIGN_OR_RETURN(const auto ranges,
                            InputRanges(options_.label, signature, options_.ranges));
  for (size_t i = 0; i < signature.inputs.size(); ++i) {
    if (signature.inputs[i].is_optional) continue;
    PENSTOCK_RETURN_IF_ERROR(AddInput(i, ranges[i]));
  }
  for (size_t i = 0; i < signature.outputs.size(); ++i) PENSTOCK_RETURN_IF_ERROR(AddOutput(i));
  return Status::Ok();
}

Status SessionPlan::AddInput(size_t input, const ProfileRange& range) {
  const TensorSpec& spec = signature_.signature.inputs[input];
  if (spec.dtype == DataType::kBytes) {
    return Unimplemented(StrCat(options_.label, ": input '", spec.name,
                                "' is BYTES, which no GPU computes with: expected KIND_CPU"));
  }
  tensors_.push_back({.name = spec.name,
                      .dtype = spec.dtype,
                      .is_input = true,
                      .dims = spec.dims,
                      .stays_on_host = signature_.IsOnHost(input),
                      .profiles = {range}});
  places_.push_back(input);
  return Status::Ok();
}

Status SessionPlan::AddOutput(size_t output) {
  const TensorSpec& spec = signature_.signature.outputs[output];
  const std::string what = StrCat(options_.label, ": output '", spec.name, "' ");
  if (spec.dtype == DataType::kBytes) {
    return Unimplemented(StrCat(what, "is BYTES, which no GPU computes with: expected KIND_CPU"));
  }
  const OutputPlan& plan = signature_.output_plans[output];
  if (!plan.is_predictable) {
    return Unimplemented(StrCat(
        what, "has shape ", spec.dims.ToString(),
        ", and the model file does not say how it follows from the inputs': on a GPU an output's "
        "dimensions are fixed, or named as an input's are; expected so, or KIND_CPU"));
  }
  tensors_.push_back({.name = spec.name, .dtype = spec.dtype, .dims = spec.dims});
  places_.push_back(output);
  return Status::Ok();
}

Result<gpu::Stream> SessionPlan::ComputeStream() {
  MutexLock lock(mu_);
  if (given_ == opened_.size()) PENSTOCK_RETURN_IF_ERROR(OpenOne());
  return opened_[given_++].stream.get();
}

Result<std::unique_ptr<tensorrt::PlanContext>> SessionPlan::CreateContext(size_t,
                                                                          const ContextMemory&,
                                                                          gpu::Stream stream) {
  std::unique_ptr<SessionBinding> binding;
  MutexLock lock(mu_);
  for (const OfStream& each : opened_) {
    if (each.stream.get() == stream) {
      PENSTOCK_ASSIGN_OR_RETURN(binding, each.session->Bind());
    }
  }
  return std::unique_ptr<tensorrt::PlanContext>(
      std::make_unique<SessionContext>(*this, std::move(binding)));
}

}  // namespace penstock::ort
