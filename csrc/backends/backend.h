// Backend: what runs a model. One interface for every engine, in this process or in a worker.
//
// A backend is a plug-in: a shared object with one versioned entry (kBackendEntry below), opened by
// the registry when a model first needs it and never closed. It makes models (a loaded file:
// weights, graph, signature), and a model makes instances (what one thread runs batches on).
//
//   Backend --Load--> BackendModel --CreateInstance--> BackendInstance --Execute--> outputs

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/device_use.h"
#include "backends/model_signature.h"
#include "backends/response_sender.h"
#include "base/status.h"
#include "memory/exported_memory.h"
#include "memory/host_pool.h"
#include "tensor/buffer.h"
#include "tensor/parameter.h"
#include "tensor/tensor_view.h"

namespace penstock {

struct LoadOptions {
  std::string model_name;       // for messages
  int64_t version = 0;          // for messages
  std::string path;             // the model file (or directory, where the format is one)
  std::string model_directory;  // the model's own directory: nothing outside it may be read
  std::map<std::string, std::string> parameters;  // ModelConfig.parameters, string values
  std::string config_json =
      {};  // the ModelConfig as it is known at load, for backends that run code
  // Where there are some the model runs in worker processes, one for each of these devices (numbers
  // among those that this process sees, or UUIDs), and the backend is asked there: its parameter
  // `device` is then 0.
  std::vector<std::string> devices = {};
};

// Memory of the caller's for a batch's outputs: a piece for each of these sizes, or none where there is
// no room.
using OutputRoom = std::function<std::vector<std::span<uint8_t>>(std::span<const size_t> sizes)>;

struct InstanceOptions {
  std::string name;  // "digits_0": for messages and thread names
  // Where there is one, outputs that lie there need no further copy. An instance may ask it once for a
  // batch, on the batch's thread, for all wanted outputs in their order (0: without data), and gives
  // the pieces back as BatchOutput::data, of just those sizes. Whatever writes there is through when the
  // batch returns, but for a device that is lost (is_available): that may write to the end of the process.
  OutputRoom output_room = {};
};

// An input of a batch: which input of the signature it is, and its bytes (batch dimension first).
// Ownership: borrows; the caller keeps the bytes alive through Execute. Aligned to
// HostPool::kAlignment unless the caller handed over a client's buffer, which is then aligned to
// its element's size.
struct BatchInput {
  size_t index = 0;  // in ModelSignature::inputs
  TensorView tensor;
};

// Some rows of a batch's input, in host memory or in a client's memory on a GPU.
struct InputPart {
  size_t input = 0;                    // which of the batch's inputs
  std::span<const uint8_t> host = {};  // used where `device` has no memory
  DevicePart device = {};
};

// Rows of a batch's output that go to a client's memory on a GPU.
struct OutputPart {
  size_t wanted = 0;  // which of the wanted outputs
  uint32_t first_row = 0, rows = 0;
  bool is_read_on_host = true;  // of the output as a whole: somebody wants rows of it there, too
  DevicePart device;            // rows that come to more than its size are not written
};

// Where tensors lie that are not in one piece of host memory.
struct BatchParts {
  // All rows of an input in their order: its tensor has no data then. Or none of them.
  std::span<const InputPart> inputs;
  std::span<const OutputPart> outputs;
};

// An output of a batch. `data` holds exactly the tensor's bytes (BYTES in wire layout).
struct BatchOutput {
  size_t index = 0;  // in ModelSignature::outputs
  DataType dtype = DataType::kInvalid;
  Shape shape;
  Buffer data;
};

// One request of a batch, for backends that answer requests one by one. Its rows in the batch's
// inputs follow those of the requests before it.
// Ownership: the views are valid through ExecuteRequests; `responses` as long as it is held.
struct BatchRequest {
  uint32_t rows = 1;
  std::string_view id;                    // the client's; may be empty
  std::span<const Parameter> parameters;  // the client's, reserved ones left out
  std::span<const size_t> wanted;         // in ModelSignature::outputs
  int64_t timeout_us = 0;                 // 0 = none given
  std::shared_ptr<ResponseSender> responses;
};

// Runs batches, one at a time.
// Threading: thread-compatible; confined to its instance's thread unless runs_on_any_thread().
class BackendInstance {
 public:
  virtual ~BackendInstance() = default;

  // True where Execute may be called on one thread after another and computes on its caller: a
  // quick model is then run by the thread that brings the request, which is cheaper than handing it
  // over.
  virtual bool runs_on_any_thread() const { return false; }

  // False while batches fail whatever is in them, as when a worker is being started again.
  // Threading: on any thread.
  virtual bool is_available() const { return true; }

  // How often what runs its batches, a process, was started again.
  // Threading: on any thread.
  virtual uint64_t restarts() const { return 0; }

  // Memory to gather an input into; a worker's instance hands out its slab here.
  virtual Buffer AllocateInput(size_t size_bytes) {
    return HostPool::Shared().Allocate(size_bytes);
  }

  // Runs one batch. Inputs that a request may leave out and did are absent from `inputs`. Fills
  // `outputs` (cleared by the caller) with one entry for each of `wanted`, in that order. May
  // throw: the engine fails the batch.
  // Blocking: for the length of the computation.
  virtual Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                         std::vector<BatchOutput>* outputs) = 0;

  // True where ExecuteParts copies from and to that memory on the GPU itself; it is asked for each
  // tensor that lies there. False: the engine copies through host memory, for Execute.
  // Blocking: the first time, while the memory is opened.
  virtual bool Reaches(const ExportedMemory& memory) {
    (void)memory;
    return false;
  }
  // Execute, of a batch some of whose tensors lie in memory that it reaches. What is written there is
  // there when it returns; an output that nobody reads on the host has no data. The memory that
  // parts hold is kept for as long as the GPU may touch it, also where the batch fails.
  virtual Status ExecuteParts(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                              const BatchParts& parts, std::vector<BatchOutput>* outputs) {
    (void)inputs, (void)wanted, (void)parts, (void)outputs;
    return Internal("this backend does not take tensors in parts");
  }

  // True where ExecuteRequests is called in place of Execute.
  virtual bool answers_requests() const { return false; }
  // Runs one batch and answers each of its requests through its sender, now or later; a sender that
  // is kept leaves the instance free for its next batch. Not OK fails what was not finished.
  virtual Status ExecuteRequests(std::span<const BatchInput> inputs,
                                 std::span<const BatchRequest> requests) {
    (void)inputs, (void)requests;
    return Internal("this backend does not answer requests one by one");
  }
};

// A loaded model.
// Threading: thread-safe.
// Ownership: outlives its instances.
class BackendModel {
 public:
  virtual ~BackendModel() = default;
  virtual const ModelSignature& signature() const = 0;
  // Where its batches are computed, for people: the devices, then what of the engine computes there
  // where that was a choice. "GPU 0 (NVIDIA H200), CUDAExecutionProvider". The same for good.
  virtual std::string runs_on() const { return "CPU"; }
  // One entry for each device that is not the CPU.
  // Cost: asked at each scrape.
  // Blocking: never, but for a moment where a worker is asked.
  virtual std::vector<DeviceUse> device_use() const { return {}; }
  virtual Result<std::unique_ptr<BackendInstance>> CreateInstance(
      const InstanceOptions& options) = 0;
};

// Threading: Load is thread-safe.
// Ownership: outlives its models; lives until the process ends.
class Backend {
 public:
  virtual ~Backend() = default;
  // The engine's own name and version, for logs and metadata: "ONNX Runtime 1.32.0".
  virtual std::string_view description() const = 0;
  // Loads a model file.
  // Blocking: reads files, may take minutes. A missing, corrupt or unsupported file is a Status
  // that names the model and the cause, without server paths.
  virtual Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options) = 0;
  // Prepares memory that inputs of batches will lie in, or outputs be written to, for as long as the
  // handle lives: a backend that copies to a device registers it with the driver. Null: nothing to
  // do.
  virtual std::shared_ptr<void> PinHostMemory(std::span<uint8_t> memory) {
    (void)memory;
    return nullptr;
  }
};

// Settings of a backend as a whole, e.g. {"library": "<path of libonnxruntime>"}.
using BackendOptions = std::map<std::string, std::string>;

// The plug-in's only exported symbol, `kBackendEntry`, of type BackendEntry. The version in its
// name changes with any change of the types above: a plug-in built for another one is refused by
// name.
using BackendEntry = Result<std::unique_ptr<Backend>> (*)(const BackendOptions& options);
inline constexpr const char* kBackendEntry = "penstock_backend_v6";

}  // namespace penstock
