#include "backends/onnxruntime/session_warm_up.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "base/strcat.h"
#include "gpu/gpu_handles.h"
#include "gpu/pinned_pool.h"

namespace penstock::ort {
namespace {

using tensorrt::ProfileRange;

bool CanRun(const SessionSignature& signature) {
  const auto is_text = [](const TensorSpec& spec) { return spec.dtype == DataType::kBytes; };
  const auto& inputs = signature.signature.inputs;
  const auto& outputs = signature.signature.outputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (signature.IsOnHost(i)) return false;
  }
  return std::none_of(inputs.begin(), inputs.end(), is_text) &&
         std::none_of(outputs.begin(), outputs.end(), is_text) &&
         std::all_of(signature.output_plans.begin(), signature.output_plans.end(),
                     [](const OutputPlan& plan) { return plan.is_predictable; });
}

// Of an output that is predictable, for the inputs' shapes.
Result<Shape> ShapeOfOutput(const OutputPlan& plan, const std::vector<Shape>& inputs) {
  Shape shape;
  for (const OutputDim& dim : plan.dims) {
    const bool is_fixed = dim.source == OutputDim::Source::kFixed;
    if (!is_fixed && (dim.input >= inputs.size() || dim.axis >= inputs[dim.input].rank())) {
      return Internal("an output's dimension is no input's");
    }
    shape.Append(is_fixed ? dim.size : inputs[dim.input][dim.axis]);
  }
  return shape;
}

// Memory for one run, which is over before it goes.
class OneRun {
 public:
  OneRun(const std::string& label, gpu::Device& device, gpu::Stream stream, DeviceSession& session)
      : label_(label), device_(device), stream_(stream), session_(session) {}

  // `shapes`: by input of the signature.
  Status At(const std::vector<Shape>& shapes);

 private:
  Status BindAll(SessionBinding& binding, const std::vector<Shape>& shapes);
  Status MakeZeros(const std::vector<Shape>& shapes);
  Status WaitForTheEnd();
  Result<size_t> BytesOf(const TensorSpec& spec, const Shape& shape) const;
  Result<void*> Allocate(size_t size_bytes);
  Status Check(gpu::Error error) {
    return device_.health().Check(error, StrCat("warm up ", label_));
  }

  const std::string& label_;
  gpu::Device& device_;
  const gpu::Stream stream_;
  DeviceSession& session_;
  // In this order: the block goes before its pool.
  std::unique_ptr<gpu::PinnedPool> pool_;
  Buffer zeros_;  // as large as the largest input
  std::vector<gpu::DeviceMemory> memory_;
};

Result<size_t> OneRun::BytesOf(const TensorSpec& spec, const Shape& shape) const {
  const auto count = shape.NumElements();
  size_t size_bytes = 0;
  if (!count ||
      __builtin_mul_overflow(static_cast<size_t>(*count), DataTypeSize(spec.dtype), &size_bytes)) {
    return InvalidArgument(
        StrCat(label_, ": '", spec.name, "' of shape ", shape.ToString(), " is too large"));
  }
  return size_bytes;
}

Status OneRun::MakeZeros(const std::vector<Shape>& shapes) {
  const auto& inputs = session_.signature().signature.inputs;
  size_t largest = 1;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].is_optional) continue;
    PENSTOCK_ASSIGN_OR_RETURN(const size_t size_bytes, BytesOf(inputs[i], shapes[i]));
    largest = std::max(largest, size_bytes);
  }
  PENSTOCK_ASSIGN_OR_RETURN(
      pool_, gpu::PinnedPool::Create(device_.api(), device_.health(), largest, /*blocks=*/1));
  PENSTOCK_ASSIGN_OR_RETURN(zeros_, pool_->TryAcquire(largest));
  std::memset(zeros_.data(), 0, largest);
  return Status::Ok();
}

Result<void*> OneRun::Allocate(size_t size_bytes) {
  void* data = nullptr;
  PENSTOCK_RETURN_IF_ERROR(
      Check(device_.api().AllocateAsync(std::max<size_t>(size_bytes, 1), stream_, &data)));
  memory_.emplace_back(device_.api(), stream_, data);
  return data;
}

Status OneRun::BindAll(SessionBinding& binding, const std::vector<Shape>& shapes) {
  const SessionSignature& signature = session_.signature();
  const auto& inputs = signature.signature.inputs;
  const auto& outputs = signature.signature.outputs;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].is_optional) continue;  // it keeps its default
    void* data = zeros_.data();
    if (!signature.IsOnHost(i)) {
      PENSTOCK_ASSIGN_OR_RETURN(const size_t size_bytes, BytesOf(inputs[i], shapes[i]));
      PENSTOCK_ASSIGN_OR_RETURN(data, Allocate(size_bytes));
      const gpu::Copy copy{data, zeros_.data(), size_bytes};
      PENSTOCK_RETURN_IF_ERROR(
          Check(device_.api().CopyAsync(copy, gpu::CopyKind::kHostToDevice, stream_)));
    }
    PENSTOCK_RETURN_IF_ERROR(binding.BindInput(i, data, shapes[i]));
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    PENSTOCK_ASSIGN_OR_RETURN(const Shape shape, ShapeOfOutput(signature.output_plans[i], shapes));
    PENSTOCK_ASSIGN_OR_RETURN(const size_t size_bytes, BytesOf(outputs[i], shape));
    PENSTOCK_ASSIGN_OR_RETURN(void* data, Allocate(size_bytes));
    PENSTOCK_RETURN_IF_ERROR(binding.BindOutput(i, data, shape));
  }
  return Status::Ok();
}

Status OneRun::At(const std::vector<Shape>& shapes) {
  PENSTOCK_RETURN_IF_ERROR(MakeZeros(shapes));
  PENSTOCK_ASSIGN_OR_RETURN(const auto binding, session_.Bind());
  Status ran = BindAll(*binding, shapes);
  if (ran.ok()) ran = binding->Run();
  ran = device_.health().CheckEngine(ran, StrCat("warm up ", label_));
  const Status ended = WaitForTheEnd();
  return ran.ok() ? ended : ran;
}

// What was enqueued still reads and writes this memory; where nobody knows for how long, it is lost
// with the device.
Status OneRun::WaitForTheEnd() {
  gpu::DeviceHealth& health = device_.health();
  if (!health.is_faulted()) {
    const Status ended = Check(device_.api().SynchronizeStream(stream_));
    if (ended.ok()) return Status::Ok();
    health.Fault(StrCat("the end of what warms up ", label_, " cannot be known"));
  }
  for (gpu::DeviceMemory& each : memory_) each.Abandon();
  return health.fault();
}

std::vector<Shape> ShapesOf(const std::vector<ProfileRange>& ranges, Shape ProfileRange::*which) {
  std::vector<Shape> shapes;
  shapes.reserve(ranges.size());
  for (const ProfileRange& range : ranges) shapes.push_back(range.*which);
  return shapes;
}

}  // namespace

Status WarmUp(const std::string& label, gpu::Device& device, gpu::Stream stream,
              DeviceSession& session, const std::vector<ProfileRange>& ranges) {
  if (!CanRun(session.signature())) return Status::Ok();
  const auto greatest = ShapesOf(ranges, &ProfileRange::greatest);
  const auto least = ShapesOf(ranges, &ProfileRange::least);
  PENSTOCK_RETURN_IF_ERROR(OneRun(label, device, stream, session).At(greatest));
  return least == greatest ? Status::Ok() : OneRun(label, device, stream, session).At(least);
}

}  // namespace penstock::ort
