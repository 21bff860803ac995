#include "backends/device_worker/child_server.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "backends/device_worker/load_document.h"
#include "backends/device_worker/slab_outputs.h"
#include "backends/worker_tensors.h"
#include "base/log.h"
#include "base/strcat.h"
#include "worker/process.h"

namespace penstock {
namespace {

constexpr const char* kLogName = "device worker";

// What threw is said in the log: its text may hold anything, and clients read the answer.
template <typename T>
T NoThrow(const std::string& what, const std::string& doing, const std::function<T()>& step) {
  try {
    return step();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(what + ": out of memory");
  } catch (const std::exception& error) {
    Log(LogLevel::kError, kLogName, StrCat(what, ": ", error.what()));
  } catch (...) {
    Log(LogLevel::kError, kLogName, StrCat(what, ": an exception of no known kind"));
  }
  return Internal(StrCat(what, " threw while ", doing));
}

// Runs at the end of a scope, however it is left.
class AtEnd {
 public:
  explicit AtEnd(std::function<void()> run) : run_(std::move(run)) {}
  ~AtEnd() { run_(); }
  AtEnd(const AtEnd&) = delete;
  AtEnd& operator=(const AtEnd&) = delete;

 private:
  const std::function<void()> run_;
};

// A client's memory, and what is done once it is closed.
struct KnownMemory {
  KnownMemory(std::function<void()> closed, const WorkerMemoryHandle& handle)
      : at_end(std::move(closed)), memory(handle.handle, handle.device, handle.size, nullptr) {}

  const AtEnd at_end;
  const ExportedMemory memory;  // goes first
};

void SendFailed(ChildChannel& channel, const Status& status) {
  std::string text(status.message());
  text.resize(std::min(text.size(), kMaxWorkerTextBytes));
  channel.SendBody(
      {.kind = WorkerPacketKind::kFailed, .value = static_cast<uint32_t>(status.code())}, text);
}

// The inputs of a batch, where they lie.
Result<std::vector<BatchInput>> TakeInputs(ChildChannel& channel, const WorkerRun& run,
                                           const ModelSignature& signature) {
  std::vector<BatchInput> inputs;
  for (const WorkerInput& input : run.inputs) {
    if (input.index >= signature.inputs.size()) return InvalidArgument("an input of no number");
    std::span<const uint8_t> data;
    if (input.size > 0) {
      PENSTOCK_ASSIGN_OR_RETURN(data, channel.At(input.slab, input.offset, input.size));
    }
    inputs.push_back(
        {input.index, {signature.inputs[input.index].name, input.dtype, input.shape, data}});
  }
  return inputs;
}

// False: the server does not take it.
bool SendFailedBatch(ChildChannel& channel, uint64_t batch, const Status& status) {
  WorkerResult result;
  result.code = status.code();
  result.text = status.message();
  std::string body;
  EncodeResult(result, &body);
  return channel.SendBody({.kind = WorkerPacketKind::kDone, .batch = batch}, body);
}

bool SendUses(ChildChannel& channel, const BackendModel& model) {
  const WorkerPacket used{.kind = WorkerPacketKind::kUsed};
  return channel.SendBody(used, EncodeDeviceUses(model.device_use())) ||
         (channel.has_no_room() && channel.SendBody(used, EncodeDeviceUses({})));
}

}  // namespace

void ChildServer::Serve() {
  for (;;) {
    WorkerPacket packet;
    OwnedFd attached;
    if (control_.Receive(/*wait=*/true, &packet, &attached) != PacketSocket::Received::kPacket) {
      return;
    }
    if (packet.kind == WorkerPacketKind::kForget) Forget(packet.batch);
    if (packet.kind != WorkerPacketKind::kOpen || attached.get() < 0) continue;
    std::thread([this, fd = std::make_shared<OwnedFd>(std::move(attached))] {
      ServeConnection(std::move(*fd));
    }).detach();
  }
}

void ChildServer::ServeConnection(OwnedFd fd) noexcept {
  try {
    ChildChannel channel(std::move(fd));
    const std::optional<WorkerPacket> packet = channel.Receive();
    if (packet && packet->kind == WorkerPacketKind::kLoad) ServeModel(channel, *packet);
    if (packet && packet->kind == WorkerPacketKind::kStart) ServeInstance(channel, *packet);
  } catch (const std::exception& error) {  // the connection is closed: the server knows what to do
    Log(LogLevel::kError, kLogName, error.what());
  } catch (...) {
    Log(LogLevel::kError, kLogName, "an exception of no known kind");
  }
}

Result<ChildServer::Model> ChildServer::Load(ChildChannel& channel, const WorkerPacket& packet) {
  PENSTOCK_ASSIGN_OR_RETURN(const auto body, channel.At(packet.slab, packet.offset, packet.size));
  PENSTOCK_ASSIGN_OR_RETURN(const DeviceLoad load, DecodeDeviceLoad(body));
  Model made;
  made.label = StrCat("model '", load.options.model_name, "' version ", load.options.version);
  backends_.SetOptions(load.backend, load.backend_options);
  PENSTOCK_ASSIGN_OR_RETURN(made.backend, backends_.Get(load.backend));
  PENSTOCK_ASSIGN_OR_RETURN(made.model, made.backend->Load(load.options));
  if (!made.model->signature().is_decoupled) return made;
  return Unimplemented(
      StrCat(made.label, ": a model that answers requests one by one runs in no device worker"));
}

void ChildServer::ServeModel(ChildChannel& channel, const WorkerPacket& packet) {
  auto made = NoThrow<Result<Model>>("a model's backend", "loading it",
                                     [&] { return Load(channel, packet); });
  if (!made.ok()) {
    EndIfLost("a load", made.status().message());
    return SendFailed(channel, made.status());
  }
  const auto model = std::make_shared<Model>(*std::move(made));
  {
    MutexLock lock(mu_);
    models_[packet.batch] = model;
  }
  const AtEnd forget([this, id = packet.batch] {
    MutexLock lock(mu_);
    models_.erase(id);  // freed by who has it last, before the connection is closed
  });
  const ModelSignature& signature = model->model->signature();
  const std::string description =
      EncodeDeviceDescription({std::string(model->backend->description()), model->model->runs_on(),
                               signature.most_rows.value_or(0), ToWorkerSignature(signature)});
  bool is_wanted = channel.SendBody({.kind = WorkerPacketKind::kDescribed}, description);
  if (channel.has_no_room()) {
    return SendFailed(channel,
                      ResourceExhausted(model->label + ": no shared memory to describe it"));
  }
  while (is_wanted) {
    const std::optional<WorkerPacket> asked = channel.Receive();
    is_wanted = asked && asked->kind == WorkerPacketKind::kUse && SendUses(channel, *model->model);
  }
}

void ChildServer::ServeInstance(ChildChannel& channel, const WorkerPacket& packet) {
  std::shared_ptr<Model> model;
  {
    MutexLock lock(mu_);
    const auto found = models_.find(packet.batch);
    if (found != models_.end()) model = found->second;
  }
  const auto name = channel.At(packet.slab, packet.offset, packet.size);
  if (model == nullptr || !name.ok()) {
    return SendFailed(channel, FailedPrecondition("an instance of a model that is not here"));
  }
  auto instance =
      NoThrow<Result<std::unique_ptr<BackendInstance>>>(model->label, "making an instance", [&] {
        return model->model->CreateInstance(
            {std::string(name->begin(), name->end()), [&channel](std::span<const size_t> sizes) {
               return AllocateOutputs(channel, sizes);
             }});
      });
  if (instance.ok() && (*instance)->answers_requests()) {
    instance = Unimplemented(StrCat(
        model->label, ": a model that answers requests one by one runs in no device worker"));
  }
  if (!instance.ok()) {
    EndIfLost(model->label, instance.status().message());
    return SendFailed(channel, instance.status());
  }
  {
    MutexLock lock(mu_);
    instances_.insert(instance->get());
  }
  const AtEnd forget([this, made = instance->get()] {
    MutexLock lock(mu_);
    instances_.erase(made);
  });
  channel.SetPin([backend = model->backend](std::span<uint8_t> memory) {
    return backend->PinHostMemory(memory);
  });
  if (channel.Send({.kind = WorkerPacketKind::kReady})) RunBatches(channel, *model, **instance);
}

void ChildServer::RunBatches(ChildChannel& channel, const Model& model, BackendInstance& instance) {
  std::vector<BatchOutput> outputs;
  while (const std::optional<WorkerPacket> packet = channel.Receive()) {
    if (packet->kind == WorkerPacketKind::kReach) {
      if (!AnswerReach(channel, *packet, model, instance)) return;
      continue;
    }
    if (packet->kind != WorkerPacketKind::kRun) return;
    channel.UseOutputs(packet->value);
    outputs.clear();
    const Status status = NoThrow<Status>(model.label, "running a batch", [&] {
      return Execute(channel, *packet, model.model->signature(), instance, &outputs);
    });
    if (!status.ok() && !instance.is_available()) EndLost(model.label, status.message());
    auto is_sent = status.ok() ? NoThrow<Result<bool>>(
                                     model.label, "sending outputs",
                                     [&] { return SendOutputs(channel, packet->batch, outputs); })
                               : Result<bool>(status);
    outputs.clear();
    if (!is_sent.ok()) is_sent = SendFailedBatch(channel, packet->batch, is_sent.status());
    if (!*is_sent) return;
  }
}

Status ChildServer::Execute(ChildChannel& channel, const WorkerPacket& packet,
                            const ModelSignature& signature, BackendInstance& instance,
                            std::vector<BatchOutput>* outputs) {
  PENSTOCK_ASSIGN_OR_RETURN(const auto body, channel.At(packet.slab, packet.offset, packet.size));
  PENSTOCK_ASSIGN_OR_RETURN(const WorkerRun run, DecodeRun(body));
  PENSTOCK_ASSIGN_OR_RETURN(const auto inputs, TakeInputs(channel, run, signature));
  if (run.input_parts.empty() && run.output_parts.empty()) {
    return instance.Execute(inputs, run.wanted, outputs);
  }
  PENSTOCK_ASSIGN_OR_RETURN(const auto input_parts, TakeInputParts(channel, run));
  PENSTOCK_ASSIGN_OR_RETURN(const auto output_parts, TakeOutputParts(run));
  return instance.ExecuteParts(inputs, run.wanted, {input_parts, output_parts}, outputs);
}

Result<std::vector<InputPart>> ChildServer::TakeInputParts(ChildChannel& channel,
                                                           const WorkerRun& run) {
  std::vector<InputPart> parts;
  for (const WorkerInputPart& part : run.input_parts) {
    if (part.input >= run.inputs.size()) return InvalidArgument("a part of an input of no number");
    InputPart& taken = parts.emplace_back();
    taken.input = part.input;
    if (part.memory != 0) {
      PENSTOCK_ASSIGN_OR_RETURN(auto memory, FindMemory(part.memory));
      taken.device = {std::move(memory), part.offset, part.size};
    } else if (part.size > 0) {
      PENSTOCK_ASSIGN_OR_RETURN(taken.host, channel.At(part.slab, part.offset, part.size));
    }
  }
  return parts;
}

Result<std::vector<OutputPart>> ChildServer::TakeOutputParts(const WorkerRun& run) {
  std::vector<OutputPart> parts;
  for (const WorkerOutputPart& part : run.output_parts) {
    if (part.wanted >= run.wanted.size()) return InvalidArgument("a part of an output not wanted");
    PENSTOCK_ASSIGN_OR_RETURN(auto memory, FindMemory(part.memory));
    parts.push_back({part.wanted,
                     part.first_row,
                     part.rows,
                     part.is_read_on_host,
                     {std::move(memory), part.offset, part.size}});
  }
  return parts;
}

bool ChildServer::AnswerReach(ChildChannel& channel, const WorkerPacket& packet, const Model& model,
                              BackendInstance& instance) {
  const auto is_reached =
      NoThrow<Result<bool>>(model.label, "opening a client's memory", [&]() -> Result<bool> {
        PENSTOCK_ASSIGN_OR_RETURN(const auto body,
                                  channel.At(packet.slab, packet.offset, packet.size));
        PENSTOCK_ASSIGN_OR_RETURN(const auto handle, DecodeMemory(body));
        return instance.Reaches(*LearnMemory(packet.batch, handle));
      });
  const bool is_yes = is_reached.ok() && *is_reached;
  if (!is_yes && !instance.is_available()) EndLost(model.label, "a client's memory does not open");
  return channel.Send(
      {.kind = WorkerPacketKind::kReached, .batch = packet.batch, .value = is_yes ? 1U : 0U});
}

ChildServer::Memory ChildServer::LearnMemory(uint64_t id, const WorkerMemoryHandle& handle) {
  MutexLock lock(mu_);
  Memory& memory = memories_[id];
  if (memory != nullptr) return memory;
  const auto known = std::make_shared<KnownMemory>(
      [this, id] {
        EndIfLost("a client's memory", "it does not close");
        control_.Send({.kind = WorkerPacketKind::kForgotten, .batch = id});
      },
      handle);
  memory = Memory(known, &known->memory);
  return memory;
}

Result<ChildServer::Memory> ChildServer::FindMemory(uint64_t id) {
  MutexLock lock(mu_);
  const auto found = memories_.find(id);
  if (found == memories_.end()) return InvalidArgument("a client's memory of no number");
  return found->second;
}

void ChildServer::Forget(uint64_t id) {
  Memory memory;
  {
    MutexLock lock(mu_);
    const auto found = memories_.find(id);
    if (found != memories_.end()) {
      memory = std::move(found->second);
      memories_.erase(found);
    }
  }
  if (memory == nullptr) control_.Send({.kind = WorkerPacketKind::kForgotten, .batch = id});
}

void ChildServer::EndIfLost(std::string_view label, std::string_view why) {
  MutexLock lock(mu_);
  const bool is_lost =
      std::any_of(instances_.begin(), instances_.end(),
                  [](const BackendInstance* each) { return !each->is_available(); });
  if (is_lost) EndLost(label, why);
}

void ChildServer::EndLost(std::string_view label, std::string_view why) {
  Log(LogLevel::kError, kLogName, StrCat("the device is lost; ", label, ": ", why));
  _exit(kDeviceLostExit);  // no destructor of a vendor's library gets to hang
}

}  // namespace penstock
