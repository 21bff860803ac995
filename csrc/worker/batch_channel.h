// BatchChannel: the server's end of a connection over which batches go to a worker, one at a time, and
// the slabs that the worker has been given there.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"
#include "worker/messages.h"
#include "worker/packet_socket.h"
#include "worker/slab.h"

namespace penstock {

// What a worker answers to a batch, or to a request of it, checked.
struct WorkerAnswer {
  struct Output {
    uint32_t index = 0;
    DataType dtype = DataType::kInvalid;
    Shape shape;
    Buffer data;
  };
  StatusCode code = StatusCode::kOk;
  std::string text;
  std::vector<Output> outputs;
};

// A tensor of a batch for a worker; borrows.
struct WorkerTensor {
  uint32_t index = 0;  // in the signature's inputs
  TensorView tensor;
};

// A part of a batch's input: `host`, where that has bytes, or else where `part` says.
struct WorkerTensorPart {
  std::span<const uint8_t> host;
  WorkerInputPart part;
};

struct WorkerBatch {
  std::span<const WorkerTensor> inputs;
  std::span<const size_t> wanted;
  std::span<const WorkerRequest> requests;  // where the model answers them one by one; else empty
  // Where tensors lie in clients' memory on GPUs; else empty.
  std::span<const WorkerTensorPart> input_parts = {};
  std::span<const WorkerOutputPart> output_parts = {};
};

// Threading: thread-safe; of SendRun and AwaitDone one call at a time.
// Ownership: borrows the socket. Outputs that lie in a slab keep that slab, not the channel.
// Blocking: AwaitDone, up to the socket's limit; what sends, as the socket.
class BatchChannel {
 public:
  // Outputs of fixed size and at least this long are handed out where they lie; smaller ones are
  // copied, which costs less than to keep a slab from being used again.
  static constexpr size_t kHandOutBytes = 256 << 10;
  // Slabs for outputs at a time, handed out or not; beyond that outputs are copied.
  static constexpr size_t kMaxOutputSlabs = 4;
  static constexpr size_t kFirstOutputSlabBytes = 64 << 10;
  static constexpr size_t kGreatestKeptBytes = 64 << 20;

  explicit BatchChannel(const PacketSocket& socket) : socket_(socket) {}

  const PacketSocket& socket() const { return socket_; }

  // Gives the worker its first slab for outputs, for what it says before there is a batch.
  Status Begin() { return Grow(kFirstOutputSlabBytes); }
  // Sends `packet` with the body `body`, in a slab of its own.
  Status SendWithBody(WorkerPacket packet, std::string_view body) EXCLUDES(mu_);
  // Gives the worker a slab that a packet will name.
  Status Map(const std::shared_ptr<Slab>& slab) EXCLUDES(mu_);
  // The slab for the next batch's outputs.
  Result<uint32_t> PrepareOutputs() EXCLUDES(mu_);
  // Answers GROW, by NO_ROOM where there is no memory for it. INVALID_ARGUMENT where more is wanted
  // than may be.
  Status AnswerGrow(uint64_t size_bytes) EXCLUDES(mu_);
  // A copy of a packet's body. INVALID_ARGUMENT where there is no such part of an output slab.
  Result<std::vector<uint8_t>> CopyBody(const WorkerPacket& packet) EXCLUDES(mu_);
  // Reads the results in a packet's body and takes their outputs out of the slab: copied, or, with
  // `may_hand_out`, where they lie, if PrepareOutputs is called before the worker writes again.
  // INVALID_ARGUMENT where they are not what they should be.
  // `unread`: outputs that come without their bytes.
  Result<std::vector<WorkerAnswer>> TakeAnswers(const WorkerPacket& packet, size_t expected,
                                                bool may_hand_out,
                                                std::span<const size_t> unread = {}) EXCLUDES(mu_);

  // Sends a batch whose inputs lie in `arena`, or are copied into it. `streams`: it is answered by
  // responses, which need no slab of their own. RESOURCE_EXHAUSTED: there is no memory for it, and
  // nothing was sent. UNAVAILABLE: the worker takes nothing, with what of.
  Status SendRun(const WorkerBatch& batch, uint64_t id, SlabArena* arena, bool streams)
      EXCLUDES(mu_);
  // How the wait for a batch's answers ended: DEADLINE_EXCEEDED, they did not come within `limit_ns`
  // (0 = no limit), which is the socket's limit too; UNAVAILABLE, the connection is closed;
  // INVALID_ARGUMENT, it broke the protocol, with how; RESOURCE_EXHAUSTED, there is no memory to take
  // the outputs: the next batch may be sent.
  Result<std::vector<WorkerAnswer>> AwaitDone(uint64_t id, size_t expected, int64_t limit_ns,
                                              std::span<const size_t> unread = {}) EXCLUDES(mu_);

 private:
  Status Grow(uint64_t size_bytes) EXCLUDES(mu_);
  Result<std::vector<WorkerAnswer>> TakeDone(const WorkerPacket& packet, size_t expected,
                                             std::span<const size_t> unread) EXCLUDES(mu_);
  std::shared_ptr<Slab> FindOutputs(uint32_t id) EXCLUDES(mu_);
  Status MapLocked(const std::shared_ptr<Slab>& slab, bool is_for_outputs) REQUIRES(mu_);
  bool UnmapUnused() REQUIRES(mu_);
  bool HasRoomForHandOut(const std::shared_ptr<Slab>& slab) EXCLUDES(mu_);
  Status TakeOutput(const std::shared_ptr<Slab>& slab, bool may_hand_out,
                    const WorkerOutput& output, WorkerAnswer::Output* taken);

  // Where the bytes lie that the worker is to read; it has the slab then.
  Result<SlabPlace> Place(std::span<const uint8_t> bytes, SlabArena* arena) EXCLUDES(mu_);
  Status PlaceParts(const WorkerBatch& batch, SlabArena* arena) EXCLUDES(mu_);

  // Constant after construction.
  const PacketSocket& socket_;

  // Of SendRun, kept for their capacity.
  std::vector<WorkerInput> placed_;
  std::vector<WorkerInputPart> placed_parts_;
  std::string body_;

  Mutex mu_;
  // Guarded by mu_.
  std::vector<std::shared_ptr<Slab>> outputs_ GUARDED_BY(mu_);
  std::map<uint32_t, std::weak_ptr<Slab>> mapped_ GUARDED_BY(mu_);
};

}  // namespace penstock
