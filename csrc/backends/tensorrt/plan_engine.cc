#include "backends/tensorrt/plan_engine.h"

#include <algorithm>
#include <utility>

#include "base/leave_to_process.h"
#include "base/strcat.h"

namespace penstock::tensorrt {

// Threading: thread-compatible.
// Ownership: borrows the engine, which outlives it.
class PlanContexts final : public gpu::DeviceContext {
 public:
  PlanContexts(const PlanEngine& engine, std::shared_ptr<ContextScratch> scratch)
      : engine_(engine), scratch_(std::move(scratch)) {}

  Status Add(size_t profile, const gpu::Bindings& bindings, gpu::Stream stream);

  Status Enqueue(gpu::Stream stream, uint32_t rows) override;
  Status EnqueueShaped(gpu::Stream stream, gpu::ShapedBatch& batch) override;

 private:
  struct OfProfile {
    size_t profile;
    std::unique_ptr<PlanContext> context;
    uint32_t rows = 0;  // that its shapes are set for; 0 = for others
  };

  OfProfile* Find(std::optional<size_t> profile);
  Status Set(OfProfile& one, uint32_t rows) const;

  const PlanEngine& engine_;
  const std::shared_ptr<ContextScratch> scratch_;  // goes after the contexts
  std::vector<OfProfile> contexts_;
};

Status PlanContexts::Add(size_t profile, const gpu::Bindings& bindings, gpu::Stream stream) {
  const ContextMemory memory{scratch_->memory.data(), scratch_->size_bytes};
  PENSTOCK_ASSIGN_OR_RETURN(auto context, engine_.plan_->CreateContext(profile, memory, stream));
  const PlanLayout& layout = engine_.layout_;
  for (size_t i = 0; i < layout.inputs().size(); ++i) {
    PENSTOCK_RETURN_IF_ERROR(context->SetAddress(layout.inputs()[i], bindings.inputs[i]));
  }
  for (size_t i = 0; i < layout.outputs().size(); ++i) {
    PENSTOCK_RETURN_IF_ERROR(context->SetAddress(layout.outputs()[i], bindings.outputs[i]));
  }
  contexts_.push_back({profile, std::move(context)});
  return Status::Ok();
}

PlanContexts::OfProfile* PlanContexts::Find(std::optional<size_t> profile) {
  const auto found = std::find_if(contexts_.begin(), contexts_.end(),
                                  [&](const OfProfile& one) { return one.profile == profile; });
  return found == contexts_.end() ? nullptr : &*found;
}

// What is set once stays: a captured context is never given other shapes.
Status PlanContexts::Set(OfProfile& one, uint32_t rows) const {
  if (one.rows == rows) return Status::Ok();
  one.rows = 0;
  PENSTOCK_RETURN_IF_ERROR(engine_.SetShapes(*one.context, engine_.layout_.ShapesOf(rows)));
  PENSTOCK_ASSIGN_OR_RETURN(const auto shapes, engine_.OutputShapes(*one.context));
  for (size_t i = 0; i < shapes.size(); ++i) {
    const gpu::DeviceTensor& tensor = engine_.outputs_[i];
    PENSTOCK_ASSIGN_OR_RETURN(const size_t size_bytes, engine_.BytesOf(tensor, shapes[i]));
    if (size_bytes == tensor.row_bytes * rows) continue;
    return Internal(StrCat(engine_.label_, ": output '", tensor.name, "' of ", rows,
                           " rows has shape ", shapes[i].ToString(), ", expected ",
                           tensor.row_bytes, " bytes for each row"));
  }
  one.rows = rows;
  return Status::Ok();
}

Status PlanContexts::Enqueue(gpu::Stream stream, uint32_t rows) {
  OfProfile* one = Find(engine_.layout_.ProfileOfRows(rows));
  if (one == nullptr || engine_.layout_.has_open_shapes()) {
    return Internal(StrCat(engine_.label_, ": there is no context for ", rows, " rows"));
  }
  PENSTOCK_RETURN_IF_ERROR(Set(*one, rows));
  return one->context->Enqueue(stream);
}

Status PlanContexts::EnqueueShaped(gpu::Stream stream, gpu::ShapedBatch& batch) {
  OfProfile* one = Find(engine_.layout_.ProfileOf(batch.inputs));
  if (one == nullptr) return engine_.layout_.WhyNoProfile(batch.inputs);
  one->rows = 0;
  PENSTOCK_RETURN_IF_ERROR(engine_.SetShapes(*one->context, batch.inputs));
  PENSTOCK_ASSIGN_OR_RETURN(batch.outputs, engine_.OutputShapes(*one->context));
  batch.output_bytes.clear();
  for (size_t i = 0; i < batch.outputs.size(); ++i) {
    const gpu::DeviceTensor& tensor = engine_.outputs_[i];
    PENSTOCK_ASSIGN_OR_RETURN(const size_t size_bytes, engine_.BytesOf(tensor, batch.outputs[i]));
    const size_t room = tensor.row_bytes * engine_.max_rows();
    if (size_bytes > room) {
      return Internal(StrCat(engine_.label_, ": output '", tensor.name, "' of shape ",
                             batch.outputs[i].ToString(), " has ", size_bytes,
                             " bytes, and at its profile's greatest shapes had ", room));
    }
    batch.output_bytes.push_back(size_bytes);
  }
  return one->context->Enqueue(stream);
}

Result<std::unique_ptr<PlanEngine>> PlanEngine::Create(gpu::Api& api, gpu::DeviceHealth& health,
                                                       std::string label,
                                                       std::unique_ptr<Plan> plan, bool batches) {
  PENSTOCK_ASSIGN_OR_RETURN(auto layout,
                            PlanLayout::Create(label, plan->tensors(), plan->profiles(), batches));
  std::unique_ptr<PlanEngine> engine(
      new PlanEngine(api, health, std::move(label), std::move(plan), std::move(layout)));
  PENSTOCK_RETURN_IF_ERROR(engine->Measure());
  return engine;
}

PlanEngine::PlanEngine(gpu::Api& api, gpu::DeviceHealth& health, std::string label,
                       std::unique_ptr<Plan> plan, PlanLayout layout)
    : api_(api),
      health_(health),
      label_(std::move(label)),
      plan_(std::move(plan)),
      layout_(std::move(layout)) {
  for (const size_t input : layout_.inputs()) {
    const PlanTensor& tensor = plan_->tensors()[input];
    inputs_.push_back({tensor.name, tensor.dtype, 0, tensor.stays_on_host});
    has_host_inputs_ = has_host_inputs_ || tensor.stays_on_host;
  }
  for (const TensorSpec& spec : layout_.signature().outputs) {
    outputs_.push_back({spec.name, spec.dtype});
  }
  for (size_t p = 0; p < plan_->profiles(); ++p) {
    scratch_bytes_ = std::max(scratch_bytes_, plan_->ContextBytes(p));
  }
}

PlanEngine::~PlanEngine() {
  if (health_.is_faulted()) LeaveToTheProcess(std::move(plan_));
}

Status PlanEngine::Measure() {
  PENSTOCK_RETURN_IF_ERROR(MeasureInputs());
  gpu::Stream handle = nullptr;
  PENSTOCK_RETURN_IF_ERROR(
      health_.Check(api_.CreateStream(&handle), StrCat("create a stream for ", label_)));
  const gpu::OwnedStream stream(api_, handle);
  Status measured;
  for (size_t p = 0; p < plan_->profiles() && measured.ok(); ++p) {
    measured = health_.CheckEngine(MeasureProfile(p, handle), StrCat("prepare ", label_));
  }
  const Status ended = health_.Check(api_.SynchronizeStream(handle), StrCat("prepare ", label_));
  return measured.ok() ? ended : measured;
}

Status PlanEngine::MeasureInputs() {
  for (size_t p = 0; p < plan_->profiles(); ++p) {
    const std::vector<Shape> shapes =
        layout_.has_open_shapes() ? layout_.GreatestShapes(p) : layout_.ShapesOf(max_rows());
    for (size_t i = 0; i < inputs_.size(); ++i) {
      PENSTOCK_ASSIGN_OR_RETURN(const size_t size_bytes, BytesOf(inputs_[i], shapes[i]));
      const size_t row_bytes = (size_bytes + max_rows() - 1) / max_rows();
      inputs_[i].row_bytes = std::max(inputs_[i].row_bytes, row_bytes);
    }
  }
  return Status::Ok();
}

// A context knows it without memory to work in, and none of it runs.
Status PlanEngine::MeasureProfile(size_t profile, gpu::Stream stream) {
  PENSTOCK_ASSIGN_OR_RETURN(auto context, plan_->CreateContext(profile, {}, stream));
  const std::vector<Shape> shapes = layout_.GreatestShapes(profile);
  PENSTOCK_RETURN_IF_ERROR(SetShapes(*context, shapes));
  PENSTOCK_ASSIGN_OR_RETURN(const auto outputs, OutputShapes(*context));
  const auto rows =
      layout_.has_rows() && !shapes.empty() ? static_cast<uint32_t>(shapes.front()[0]) : 1U;
  for (size_t i = 0; i < outputs.size(); ++i) {
    PENSTOCK_RETURN_IF_ERROR(AddOutput(i, outputs[i], rows));
  }
  // Its profile is chosen on the stream: it must not go before.
  return health_.Check(api_.SynchronizeStream(stream), StrCat("prepare ", label_));
}

Status PlanEngine::AddOutput(size_t output, const Shape& shape, uint32_t rows) {
  gpu::DeviceTensor& tensor = outputs_[output];
  if (layout_.has_rows() && (shape.empty() || shape[0] != rows)) {
    return Unimplemented(StrCat(label_, ": output '", tensor.name, "' has shape ", shape.ToString(),
                                " for ", rows,
                                " rows: its first dimension is not that of the rows"));
  }
  PENSTOCK_ASSIGN_OR_RETURN(const size_t size_bytes, BytesOf(tensor, shape));
  const uint32_t shared = layout_.has_open_shapes() ? max_rows() : rows;
  tensor.row_bytes = std::max(tensor.row_bytes, (size_bytes + shared - 1) / shared);
  return Status::Ok();
}

Status PlanEngine::SetShapes(PlanContext& context, std::span<const Shape> shapes) const {
  for (size_t i = 0; i < shapes.size(); ++i) {
    PENSTOCK_RETURN_IF_ERROR(context.SetInputShape(layout_.inputs()[i], shapes[i]));
  }
  return Status::Ok();
}

Result<std::vector<Shape>> PlanEngine::OutputShapes(PlanContext& context) const {
  std::vector<Shape> shapes;
  for (size_t i = 0; i < outputs_.size(); ++i) {
    PENSTOCK_ASSIGN_OR_RETURN(const Shape shape, context.OutputShape(layout_.outputs()[i]));
    if (std::any_of(shape.begin(), shape.end(), [](int64_t dim) { return dim < 0; })) {
      return Unimplemented(StrCat(label_, ": output '", outputs_[i].name, "' has shape ",
                                  shape.ToString(),
                                  ", which depends on what the inputs hold: not supported"));
    }
    shapes.push_back(shape);
  }
  return shapes;
}

Result<size_t> PlanEngine::BytesOf(const gpu::DeviceTensor& tensor, const Shape& shape) const {
  const auto count = shape.NumElements();
  size_t size_bytes = 0;
  if (!count || __builtin_mul_overflow(static_cast<size_t>(*count), DataTypeSize(tensor.dtype),
                                       &size_bytes)) {
    return Internal(
        StrCat(label_, ": '", tensor.name, "' of shape ", shape.ToString(), " is too large"));
  }
  return size_bytes;
}

Result<std::shared_ptr<ContextScratch>> PlanEngine::ScratchOf(gpu::Stream stream) {
  MutexLock lock(mu_);
  if (auto there = scratch_[stream].lock()) return there;
  auto made = std::make_shared<ContextScratch>();
  if (scratch_bytes_ > 0) {
    void* data = nullptr;
    PENSTOCK_RETURN_IF_ERROR(
        health_.Check(api_.AllocateAsync(scratch_bytes_, stream, &data),
                      StrCat("allocate ", scratch_bytes_, " bytes for contexts of ", label_)));
    made->memory = gpu::DeviceMemory(api_, stream, data);
    made->size_bytes = scratch_bytes_;
  }
  scratch_[stream] = made;
  return made;
}

Result<gpu::Stream> PlanEngine::ComputeStream() {
  auto stream = plan_->ComputeStream();
  if (stream.ok()) return stream;
  return health_.CheckEngine(stream.status(), StrCat("prepare ", label_));
}

Result<std::unique_ptr<gpu::DeviceContext>> PlanEngine::CreateContext(const gpu::Bindings& bindings,
                                                                      uint32_t rows,
                                                                      gpu::Stream stream) {
  PENSTOCK_ASSIGN_OR_RETURN(auto scratch, ScratchOf(stream));
  auto contexts = std::make_unique<PlanContexts>(*this, std::move(scratch));
  const std::optional<size_t> only = layout_.ProfileOfRows(rows);
  for (size_t p = 0; p < plan_->profiles(); ++p) {
    if (rows != kAnyRows && p != only) continue;
    PENSTOCK_RETURN_IF_ERROR(
        health_.CheckEngine(contexts->Add(p, bindings, stream), StrCat("prepare ", label_)));
  }
  return std::unique_ptr<gpu::DeviceContext>(std::move(contexts));
}

}  // namespace penstock::tensorrt
