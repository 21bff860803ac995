// What the server and a worker say to each other.
//
// Over one SOCK_SEQPACKET socket go packets of a fixed size; what varies in length lies in slabs
// (slab.h), and a packet says where. All numbers are little-endian and packed.
//
//   packet   = kind u32, slab u32, batch u64, request u32, value u32, offset u64, size u64
//   (the body of a packet is the `size` bytes at `offset` of `slab`)
//
//   server -> worker
//     MAP       slab of `size` bytes, its descriptor attached; value & 1: write outputs there
//               from now on; value & 2: it serves one batch
//     UNMAP     slab: not used any more
//     START     body = the instance's name; the worker makes its model ready, or, on a connection of
//               its own, an instance of the model `batch`
//     RUN       batch; body = run; value = the slab for its outputs
//     CREDIT    batch, request: `value` more responses may be sent
//     CANCEL    batch, request: its client has gone
//     TAKEN     the body of the last RESPONSE is not needed any more
//     OPEN      on the process's own socket: the end of one more connection, attached
//     REACH     to an instance: does it copy from and to the memory of a client on a GPU that is `batch`
//               from now on? body = memory; the answer is REACHED
//     FORGET    on the process's own socket: the memory `batch` is not used any more. The answer is
//               FORGOTTEN
//     LOAD      on a connection of its own: the model is `batch` from now on; body = what to load; the
//               worker answers DESCRIBED, and keeps the model until the connection is closed
//     NO_ROOM   the answer to GROW where the server has no memory: the slab for outputs stays
//     USE       there: what does the model use of its devices? The answer is USED
//   worker -> server
//     DESCRIBED body = signature; the model is imported, and waits for START
//     READY     the model takes batches
//     FAILED    body = text, UTF-8: why there will be no DESCRIBED or no READY; the worker ends, or
//               closes the connection where it is one of several; value = a status code, or 0
//     USED      body = that
//     REACHED   batch; value 1: yes, 0: no
//     FORGOTTEN batch: it is closed
//     GROW      `size` bytes are wanted for a body; the answer is a MAP with value 1, or NO_ROOM
//     RESPONSE  of a decoupled model: batch, request; body = results, one. value 1: it is the last of
//               its request; 3: there is no body, only that. After a body the worker waits for TAKEN
//     DONE      batch; body = results: one for the batch, or one for each request of RUN's; of a
//               decoupled model one without outputs: whether it takes the batch. That one waits for
//               TAKEN, too
//
//   signature = flags u32 (1 decoupled, 2 answers requests one by one, 4 batches dynamically),
//               max_batch_size i32 (-1: not said), inputs u32, outputs u32, spec*
//   spec      = dtype u32, flags u32 (1 optional), rank u32, name_size u32, dims i64*, name
//   run       = inputs u32, wanted u32, requests u32, input*, wanted index u32*, request*, and, where
//               tensors lie in clients' memory on GPUs, parts
//   input     = index u32, dtype u32, slab u32, rank u32, offset u64, size u64, dims i64*
//   request   = rows u32, room u32, timeout_us i64, wanted u32, parameters u32, id_size u32,
//               wanted index u32*, id, parameter*
//   parameter = type u32 (0 bool, 1 int64, 2 uint64, 3 double, 4 string), key_size u32, key, value:
//               8 bytes, or size u32 and text
//   parts     = of inputs u32, of outputs u32, in part*, out part*
//   in part   = which of the inputs u32, slab u32, memory u64 (0: in the slab), offset u64, size u64. An
//               input with parts has all its rows there, in their order
//   out part  = which of the wanted u32, first row u32, rows u32, read u32 (1: somebody wants the output
//               in the slab, too; 0: it has no bytes there), memory u64, offset u64, size u64
//   memory    = handle 64 bytes, device i32 (as the server counts them), size u64
//   results   = count u32, result*
//   result    = code u32, text_size u32, outputs u32, text, output*
//   output    = index u32, dtype u32, rank u32, offset u64, size u64, dims i64*; data in the body's
//               slab
//
// Every index counts from 0; dtype numbers are DataType's.
//
// Trust: none in what a worker sends. Bodies are copied out of the slab before they are read, and
// every number is checked.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "memory/exported_memory.h"
#include "tensor/dtype.h"
#include "tensor/parameter.h"
#include "tensor/shape.h"

namespace penstock {

enum class WorkerPacketKind : uint32_t {
  kMap = 1,
  kUnmap = 2,
  kStart = 3,
  kRun = 4,
  kCredit = 5,
  kCancel = 6,
  kTaken = 7,
  kOpen = 8,
  kLoad = 9,
  kUse = 10,
  kNoRoom = 11,
  kReach = 12,
  kForget = 13,
  kDescribed = 32,
  kReady = 33,
  kFailed = 34,
  kGrow = 35,
  kResponse = 36,
  kDone = 37,
  kUsed = 38,
  kReached = 39,
  kForgotten = 40,
};

struct WorkerPacket {
  WorkerPacketKind kind{};
  uint32_t slab = 0;
  uint64_t batch = 0;
  uint32_t request = 0;
  uint32_t value = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
};
static_assert(sizeof(WorkerPacket) == 40 && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "packets are copied as they lie in memory");

struct WorkerTensorSpec {
  std::string name;
  DataType dtype = DataType::kInvalid;
  Shape dims;  // batch dimension included; -1 = any
  bool is_optional = false;

  bool operator==(const WorkerTensorSpec&) const = default;
};

// What a model says of itself.
struct WorkerSignature {
  bool is_decoupled = false;
  bool answers_requests = false;  // RUN carries the requests of its batch
  bool batches_dynamically = false;
  int32_t max_batch_size = -1;  // -1: it does not say
  std::vector<WorkerTensorSpec> inputs;
  std::vector<WorkerTensorSpec> outputs;

  bool operator==(const WorkerSignature&) const = default;
};

// An input of a batch, where it lies.
struct WorkerInput {
  uint32_t index = 0;
  DataType dtype = DataType::kInvalid;
  Shape shape;
  uint32_t slab = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
};

// Rows of an input, in a slab or in a client's memory on a GPU.
struct WorkerInputPart {
  uint32_t input = 0;  // which of the batch's inputs
  uint32_t slab = 0;
  uint64_t memory = 0;  // 0: in the slab
  uint64_t offset = 0;
  uint64_t size = 0;
};

// Rows of an output that go to a client's memory on a GPU.
struct WorkerOutputPart {
  uint32_t wanted = 0;  // which of the wanted outputs
  uint32_t first_row = 0;
  uint32_t rows = 0;
  bool is_read_on_host = true;  // of the output as a whole
  uint64_t memory = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
};

// A request of a batch; borrows.
struct WorkerRequest {
  uint32_t rows = 1;
  uint32_t room = 0;
  int64_t timeout_us = 0;
  std::string_view id;
  std::span<const Parameter> parameters;
  std::span<const size_t> wanted;
};

struct WorkerOutput {
  uint32_t index = 0;
  DataType dtype = DataType::kInvalid;
  Shape shape;
  uint64_t offset = 0;  // in the slab of the body
  uint64_t size = 0;
};

struct WorkerResult {
  StatusCode code = StatusCode::kOk;
  std::string text;  // any bytes: the engine makes UTF-8 of it
  std::vector<WorkerOutput> outputs;
};

// The body of RUN.
void EncodeRun(std::span<const WorkerInput> inputs, std::span<const size_t> wanted,
               std::span<const WorkerRequest> requests, std::string* body);
// Goes behind that, where there are any.
void EncodeParts(std::span<const WorkerInputPart> inputs, std::span<const WorkerOutputPart> outputs,
                 std::string* body);
// The body of REACH.
std::string EncodeMemory(const ExportedMemory& memory);

// A batch, as the worker's side reads it. Only for models that answer batches as a whole.
struct WorkerRun {
  std::vector<WorkerInput> inputs;
  std::vector<size_t> wanted;
  std::vector<WorkerInputPart> input_parts;
  std::vector<WorkerOutputPart> output_parts;
};

// The worker's side, in C++ (server/penstock/worker has it in Python).
void EncodeSignature(const WorkerSignature& signature, std::string* body);
// INVALID_ARGUMENT where it cannot be read, or has requests. Slabs and places are not checked.
Result<WorkerRun> DecodeRun(std::span<const uint8_t> body);
// A client's memory, as REACH says it.
struct WorkerMemoryHandle {
  ExportedMemory::Handle handle{};
  int32_t device = 0;
  uint64_t size = 0;
};
Result<WorkerMemoryHandle> DecodeMemory(std::span<const uint8_t> body);
// The body of DONE for a batch.
void EncodeResult(const WorkerResult& result, std::string* body);

inline constexpr uint32_t kMapForOutputs = 1, kMapForOneBatch = 2;  // of MAP's value

// Bounds of what is read from a worker.
inline constexpr size_t kMaxWorkerTensors = 4096;
// What all outputs of a batch may take, with the body that tells of them: more than a response can.
inline constexpr size_t kMaxWorkerOutputBytes = size_t{4} << 30;
inline constexpr size_t kMaxWorkerTextBytes = 16 << 10;  // what is longer is cut

// INVALID_ARGUMENT with what is wrong, for a body that is not what its name says.
Result<WorkerSignature> DecodeSignature(std::span<const uint8_t> body);
// `slab_bytes`: of the slab that the outputs lie in; they lie inside it, and hold the bytes of their
// shapes (BYTES: to be checked once copied), or none where the output is one of `unread`. Together they
// take no more than the slab has.
Result<std::vector<WorkerResult>> DecodeResults(std::span<const uint8_t> body, uint64_t slab_bytes,
                                                size_t expected_results,
                                                std::span<const size_t> unread = {});

}  // namespace penstock
