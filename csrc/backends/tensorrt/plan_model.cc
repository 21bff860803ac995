#include "backends/tensorrt/plan_model.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/log.h"
#include "base/mutex.h"
#include "base/strcat.h"
#include "gpu/lane.h"
#include "memory/host_pool.h"

namespace penstock::tensorrt {
namespace {

Result<size_t> FreeBytes(gpu::Device& device) {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  PENSTOCK_RETURN_IF_ERROR(device.health().Check(device.api().MemoryInfo(&free_bytes, &total_bytes),
                                                 "ask for free memory"));
  return free_bytes;
}

// As the server completes max_batch_size.
bool Batches(const PlanSettings& settings, const std::vector<PlanTensor>& tensors) {
  const auto is_in_full = [&](const PlanTensor& tensor) {
    const auto listed = settings.listed_ranks.find(tensor.name);
    return listed != settings.listed_ranks.end() && listed->second == tensor.dims.rank();
  };
  return settings.batches && std::none_of(tensors.begin(), tensors.end(), is_in_full);
}

}  // namespace

Result<std::unique_ptr<PlanReplica>> PlanReplica::Load(const std::string& label,
                                                       const DeviceTable::Found& found,
                                                       std::unique_ptr<Plan> plan,
                                                       const PlanSettings& settings) {
  gpu::Device& device = *found.device;
  const bool batches = Batches(settings, plan->tensors());
  PENSTOCK_ASSIGN_OR_RETURN(auto engine, PlanEngine::Create(device.api(), device.health(), label,
                                                            std::move(plan), batches));
  std::unique_ptr<PlanReplica> replica(new PlanReplica(found, std::move(engine)));
  PENSTOCK_RETURN_IF_ERROR(replica->AddLanes(settings));
  return replica;
}

Status PlanReplica::AddLanes(const PlanSettings& settings) {
  gpu::LaneGroupOptions options;
  options.lanes = settings.lanes;
  PENSTOCK_ASSIGN_OR_RETURN(options.bucket_rows, layout().Buckets(settings.graph_rows));
  options.graph_budget_bytes = settings.graph_budget_bytes;
  if (layout().has_open_shapes()) options.measure_runs = 0;  // as a graph, of one shape
  if (layout().has_open_shapes() || !engine_->can_be_captured()) options.graph_budget_bytes = 0;
  PENSTOCK_ASSIGN_OR_RETURN(const size_t slot_bytes, gpu::SlotBytes(*engine_));
  PENSTOCK_ASSIGN_OR_RETURN(pool_,
                            gpu::PinnedPool::Create(device_.api(), device_.health(), slot_bytes,
                                                    options.lanes * options.slots_per_lane));
  PENSTOCK_ASSIGN_OR_RETURN(lanes_,
                            gpu::LaneGroup::Load(device_.resources(*pool_), *engine_, options));
  const auto& buckets = lanes_->table().buckets();
  const auto graphs = std::count_if(buckets.begin(), buckets.end(),
                                    [](const gpu::Bucket& b) { return b.has_graph; });
  Log(LogLevel::kInfo, "gpu",
      StrCat(engine_->name(), " on GPU ", ordinal_, " (", device_.properties().name,
             "): ", options.lanes, " lanes, graphs for ", graphs, " of ", buckets.size(),
             " batch sizes, which hold ", lanes_->graph_bytes(), " bytes"));
  return Status::Ok();
}

Status PlanReplica::LearnMemory(size_t free_before) {
  PENSTOCK_ASSIGN_OR_RETURN(const size_t free_after, FreeBytes(device_));
  memory_bytes_ = free_before > free_after ? free_before - free_after : 0;
  return Status::Ok();
}

DeviceUse PlanReplica::use() const {
  const gpu::DeviceProperties& properties = device_.properties();
  DeviceUse use;
  use.id = ordinal_;
  use.name = properties.name;
  use.uuid = UuidText(properties);
  use.memory_bytes = memory_bytes_;
  use.graph_bytes = lanes_->graph_bytes();
  use.graph_budget_bytes = lanes_->graph_budget_bytes();
  const gpu::RunCounts counts = lanes_->counts();
  const auto& buckets = lanes_->table().buckets();
  for (size_t i = 0; i < buckets.size(); ++i) {
    if (!buckets[i].has_graph) continue;
    use.graphs.push_back({buckets[i].rows, counts.graph_runs[i], counts.padded_rows[i]});
  }
  use.uncaptured_runs = counts.uncaptured_runs;
  use.uncaptured_padded_rows = counts.uncaptured_padded_rows;
  use.row_changes = counts.row_changes;
  use.busy_ns = counts.busy_ns;
  return use;
}

Result<std::unique_ptr<BackendModel>> PlanModel::Load(DeviceTable& devices,
                                                      const std::string& label,
                                                      const PlanSettings& settings,
                                                      const Read& read) {
  const auto with_label = [&](const Status& status) {
    if (status.message().starts_with(label)) return status;
    return Status(status.code(), StrCat(label, ": ", status.message()));
  };
  std::unique_ptr<PlanModel> model(new PlanModel);
  for (const std::string& name : settings.devices) {
    const auto found = devices.Get(name);
    if (!found.ok()) return with_label(found.status());
    const auto free_before = FreeBytes(*found->device);
    if (!free_before.ok()) return with_label(free_before.status());
    auto plan = read(*found);
    if (!plan.ok()) {
      return with_label(found->device->health().CheckEngine(plan.status(), "read the plan"));
    }
    PENSTOCK_ASSIGN_OR_RETURN(auto replica,
                              PlanReplica::Load(label, *found, *std::move(plan), settings));
    if (const Status learned = replica->LearnMemory(*free_before); !learned.ok()) {
      return with_label(learned);
    }
    model->replicas_.push_back(std::move(replica));
  }
  return std::unique_ptr<BackendModel>(std::move(model));
}

std::string PlanModel::runs_on() const {
  std::string text;
  for (const auto& replica : replicas_) {
    text += StrCat(text.empty() ? "" : "; ", "GPU ", replica->ordinal(), " (",
                   replica->device().properties().name, ")");
  }
  const std::string_view engine = replicas_.front()->engine().plan_engine();
  return engine.empty() ? text : StrCat(text, ", ", engine);
}

std::vector<DeviceUse> PlanModel::device_use() const {
  std::vector<DeviceUse> all;
  for (const auto& replica : replicas_) all.push_back(replica->use());
  return all;
}

Result<std::unique_ptr<BackendInstance>> PlanModel::CreateInstance(const InstanceOptions& options) {
  const size_t turn = instances_.fetch_add(1) % replicas_.size();
  return std::unique_ptr<BackendInstance>(
      std::make_unique<PlanInstance>(*replicas_[turn], options.output_room));
}

Status PlanInstance::CheckInput(size_t index, const Input& input) const {
  const TensorView& tensor = *input.tensor;
  const PlanLayout& layout = replica_.layout();
  const TensorSpec& spec = layout.signature().inputs[index];
  const auto count = tensor.shape.NumElements();
  bool fits = tensor.shape.rank() == spec.dims.rank() && count.has_value();
  for (size_t i = 0; fits && i < spec.dims.rank(); ++i) {
    fits = spec.dims[i] < 0 || spec.dims[i] == tensor.shape[i];
  }
  if (!fits) {
    return InvalidArgument(StrCat(replica_.engine().name(), ": input '", spec.name, "' has shape ",
                                  tensor.shape.ToString(), ", expected ", spec.dims.ToString()));
  }
  const size_t expected = static_cast<size_t>(*count) * DataTypeSize(spec.dtype);
  if (input.size_bytes != expected) {
    return InvalidArgument(StrCat(replica_.engine().name(), ": input '", spec.name, "' has ",
                                  input.size_bytes, " bytes, expected ", expected));
  }
  return Status::Ok();
}

Result<gpu::ShapedBatch> PlanInstance::Arrange(std::span<const BatchInput> inputs,
                                               const BatchParts& parts,
                                               std::vector<Input>* arranged) const {
  const PlanLayout& layout = replica_.layout();
  gpu::ShapedBatch batch;
  batch.rows = 1;
  arranged->assign(layout.inputs().size(), {});
  for (const BatchInput& input : inputs) {
    (*arranged)[input.index] = {&input.tensor, input.tensor.data.size()};
  }
  for (const InputPart& part : parts.inputs) {
    const size_t size_bytes =
        part.device.memory == nullptr ? part.host.size() : part.device.size_bytes;
    (*arranged)[inputs[part.input].index].size_bytes += size_bytes;
  }
  for (size_t i = 0; i < arranged->size(); ++i) {
    const TensorView* tensor = (*arranged)[i].tensor;
    const std::string& name = layout.signature().inputs[i].name;
    if (tensor == nullptr) {
      return InvalidArgument(StrCat(replica_.engine().name(), ": input '", name, "' is missing"));
    }
    PENSTOCK_RETURN_IF_ERROR(CheckInput(i, (*arranged)[i]));
    if (layout.has_rows()) {
      const int64_t rows = tensor->shape[0];
      if (rows < 1 || rows > layout.max_rows() || (i > 0 && rows != batch.rows)) {
        return InvalidArgument(StrCat(replica_.engine().name(), ": input '", name, "' has ", rows,
                                      " rows, expected ", i > 0 ? "" : "1 to ",
                                      i > 0 ? batch.rows : layout.max_rows()));
      }
      batch.rows = static_cast<uint32_t>(rows);
    }
    batch.inputs.push_back(tensor->shape);
    batch.input_bytes.push_back((*arranged)[i].size_bytes);
  }
  if (layout.has_open_shapes() && !layout.ProfileOf(batch.inputs)) {
    return layout.WhyNoProfile(batch.inputs);
  }
  return batch;
}

Status PlanInstance::TakeDevice() {
  gpu::Device& device = replica_.device();
  return device.health().Check(device.api().SetDevice(replica_.ordinal()),
                               "take the device for this thread");
}

Status PlanInstance::Run(gpu::SlotLease lease, gpu::ShapedBatch& batch, gpu::SlotLease* back) {
  Mutex mu;
  CondVar ended;
  bool is_over = false;
  Status how;
  auto done = [&](const Status& status, gpu::SlotLease returned) {
    MutexLock lock(mu);
    how = status;
    *back = std::move(returned);
    is_over = true;
    ended.NotifyOne();  // under the lock: the waiter has these on its stack
  };
  if (replica_.layout().has_open_shapes()) {
    replica_.lanes().SubmitShaped(std::move(lease), batch, std::move(done), &route_);
  } else {
    replica_.lanes().Submit(std::move(lease), batch.rows, std::move(done), &route_);
  }
  MutexLock lock(mu);
  while (!is_over) ended.Wait(mu);
  return how;
}

bool PlanInstance::IsStaged(size_t output) const {
  return std::find(route_.unread.begin(), route_.unread.end(), output) == route_.unread.end();
}

size_t PlanInstance::OutputBytes(const gpu::ShapedBatch& batch, size_t output) const {
  return replica_.layout().has_open_shapes()
             ? batch.output_bytes[output]
             : replica_.engine().outputs()[output].row_bytes * size_t{batch.rows};
}

void PlanInstance::PlaceOutputs(const gpu::ShapedBatch& batch, std::span<const size_t> wanted) {
  if (output_room_ == nullptr) return;
  std::vector<size_t> sizes;
  for (const size_t index : wanted) {
    sizes.push_back(IsStaged(index) ? OutputBytes(batch, index) : 0);
  }
  places_ = output_room_(sizes);
}

void PlanInstance::RouteToPlaces(const gpu::ShapedBatch& batch, std::span<const size_t> wanted) {
  for (size_t i = 0; i < places_.size(); ++i) {
    if (places_[i].empty() || !replica_.IsRegistered(places_[i])) continue;
    route_.outputs.push_back(
        {wanted[i], 0, batch.rows, places_[i].data(), places_[i].size(), gpu::kHostMemory});
    route_.unread.push_back(wanted[i]);
  }
}

void PlanInstance::TakeOutputs(const gpu::SlotLease& lease, const gpu::ShapedBatch& batch,
                               std::span<const size_t> wanted,
                               std::vector<BatchOutput>* outputs) const {
  const PlanLayout& layout = replica_.layout();
  for (size_t i = 0; i < wanted.size(); ++i) {
    const size_t index = wanted[i];
    const TensorSpec& spec = layout.signature().outputs[index];
    BatchOutput& output = outputs->emplace_back();
    output.index = index;
    output.dtype = spec.dtype;
    if (layout.has_open_shapes()) {
      output.shape = batch.outputs[index];
    } else {
      output.shape = layout.has_rows() ? spec.dims.WithoutFirst().WithFirst(batch.rows) : spec.dims;
    }
    if (!places_.empty()) {
      output.data =
          Buffer(places_[i].data(), places_[i].size(), places_[i].size(), nullptr, nullptr);
    }
    if (!IsStaged(index)) continue;
    const size_t size_bytes = OutputBytes(batch, index);
    if (places_.empty()) output.data = HostPool::Shared().Allocate(size_bytes);
    if (size_bytes > 0) std::memcpy(output.data.data(), lease.output(index), size_bytes);
  }
}

// The memory is held from here on: by the route, then by the slot, until the device is through.
Result<gpu::DeviceAddress> PlanInstance::Hold(const DevicePart& part) {
  const ExportedMemory& memory = *part.memory;
  gpu::DeviceAddress found = replica_.device().imports().Find(memory);
  const bool is_within =
      part.offset <= memory.size_bytes() && part.size_bytes <= memory.size_bytes() - part.offset;
  if (found.data == nullptr || !is_within) {
    return Internal(StrCat(replica_.engine().name(), ": ", part.size_bytes, " bytes at ",
                           part.offset, " of a client's ", memory.size_bytes(), " on GPU ",
                           memory.device(), " are out of the model's reach"));
  }
  if (route_.held.empty() || route_.held.back() != part.memory) {
    route_.held.push_back(part.memory);
  }
  found.data += part.offset;
  return found;
}

void PlanInstance::StageHost(const gpu::SlotLease& lease, size_t tensor,
                             std::span<const uint8_t> bytes, size_t offset_bytes) {
  if (bytes.empty()) return;
  const uint8_t* from = bytes.data();
  if (!replica_.IsRegistered(bytes)) {
    uint8_t* staged = lease.input(tensor) + offset_bytes;
    std::memcpy(staged, bytes.data(), bytes.size());
    from = staged;
  }
  route_.inputs.push_back({tensor, from, bytes.size()});
}

Status PlanInstance::StagePart(const gpu::SlotLease& lease, size_t tensor, const InputPart& part,
                               size_t offset_bytes) {
  if (part.device.memory == nullptr) {
    StageHost(lease, tensor, part.host, offset_bytes);
    return Status::Ok();
  }
  PENSTOCK_ASSIGN_OR_RETURN(const gpu::DeviceAddress from, Hold(part.device));
  route_.inputs.push_back({tensor, from.data, part.device.size_bytes, from.device});
  return Status::Ok();
}

Status PlanInstance::Stage(const gpu::SlotLease& lease, std::span<const BatchInput> inputs,
                           const BatchParts& parts) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const size_t tensor = inputs[i].index;
    StageHost(lease, tensor, inputs[i].tensor.data, 0);
    size_t staged_bytes = inputs[i].tensor.data.size();
    for (const InputPart& part : parts.inputs) {
      if (part.input != i) continue;
      PENSTOCK_RETURN_IF_ERROR(StagePart(lease, tensor, part, staged_bytes));
      staged_bytes += part.device.memory == nullptr ? part.host.size() : part.device.size_bytes;
    }
  }
  return Status::Ok();
}

Status PlanInstance::AddTargets(std::span<const size_t> wanted, std::span<const OutputPart> parts) {
  for (const OutputPart& part : parts) {
    const size_t tensor = wanted[part.wanted];
    PENSTOCK_ASSIGN_OR_RETURN(const gpu::DeviceAddress to, Hold(part.device));
    route_.outputs.push_back(
        {tensor, part.first_row, part.rows, to.data, part.device.size_bytes, to.device});
    if (!part.is_read_on_host) route_.unread.push_back(tensor);
  }
  return Status::Ok();
}

Status PlanInstance::ExecuteParts(std::span<const BatchInput> inputs,
                                  std::span<const size_t> wanted, const BatchParts& parts,
                                  std::vector<BatchOutput>* outputs) {
  Forget();  // what a batch that threw has left
  Status status = RunParts(inputs, wanted, parts, outputs);
  Forget();
  return status;
}

Status PlanInstance::RunParts(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                              const BatchParts& parts, std::vector<BatchOutput>* outputs) {
  std::vector<Input> arranged;
  PENSTOCK_ASSIGN_OR_RETURN(gpu::ShapedBatch batch, Arrange(inputs, parts, &arranged));
  PENSTOCK_RETURN_IF_ERROR(TakeDevice());
  PENSTOCK_RETURN_IF_ERROR(AddTargets(wanted, parts.outputs));
  const bool has_open_shapes = replica_.layout().has_open_shapes();
  if (!has_open_shapes) {
    PlaceOutputs(batch, wanted);  // before there is a lease, which others wait for
    RouteToPlaces(batch, wanted);
  }
  PENSTOCK_ASSIGN_OR_RETURN(gpu::SlotLease lease, replica_.lanes().Acquire());
  PENSTOCK_RETURN_IF_ERROR(Stage(lease, inputs, parts));
  gpu::SlotLease back;
  PENSTOCK_RETURN_IF_ERROR(Run(std::move(lease), batch, &back));
  if (has_open_shapes) PlaceOutputs(batch, wanted);
  TakeOutputs(back, batch, wanted, outputs);
  return Status::Ok();
}

}  // namespace penstock::tensorrt
