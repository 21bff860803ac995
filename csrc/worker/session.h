// WorkerSession: one life of a worker: its process, and the slabs that it has been given.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "base/status.h"
#include "tensor/buffer.h"
#include "tensor/tensor_view.h"
#include "worker/messages.h"
#include "worker/process.h"
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

// Threading: thread-safe.
// Ownership: owns the process. Outputs that lie in a slab keep that slab, not the session.
// Lifecycle: Start, then whoever watches the process calls End once.
class WorkerSession {
 public:
  // Outputs of fixed size and at least this long are handed out where they lie; smaller ones are
  // copied, which costs less than to keep a slab from being used again.
  static constexpr size_t kHandOutBytes = 256 << 10;
  // Slabs for outputs at a time, handed out or not; beyond that outputs are copied.
  static constexpr size_t kMaxOutputSlabs = 4;
  static constexpr size_t kFirstOutputSlabBytes = 64 << 10;
  static constexpr size_t kGreatestKeptBytes = 64 << 20;
  // What all outputs of a batch may take: more than a response can.
  static constexpr size_t kMaxOutputBytes = size_t{4} << 30;

  static Result<std::shared_ptr<WorkerSession>> Start(const WorkerLaunch& launch);

  WorkerProcess& process() { return *process_; }

  // Kills the worker; `how` is what End says of it, where it has not ended by itself before.
  void Kill(const std::string& how) EXCLUDES(mu_);
  // How the process has ended; nullopt while it runs.
  std::optional<std::string> End() EXCLUDES(mu_);

  // Sends a packet whose body is `body`, in a slab of its own.
  Status SendWithBody(WorkerPacketKind kind, std::string_view body) EXCLUDES(mu_);
  // Gives the worker a slab that a packet will name.
  Status Map(const std::shared_ptr<Slab>& slab) EXCLUDES(mu_);
  // The slab for the next batch's outputs.
  Result<uint32_t> PrepareOutputs() EXCLUDES(mu_);
  // Answers GROW. INVALID_ARGUMENT where more is wanted than may be.
  Status Grow(uint64_t size_bytes) EXCLUDES(mu_);
  // A copy of a packet's body. INVALID_ARGUMENT where there is no such part of an output slab.
  Result<std::vector<uint8_t>> CopyBody(const WorkerPacket& packet) EXCLUDES(mu_);
  // Reads the results in a packet's body and takes their outputs out of the slab: copied, or, with
  // `may_hand_out`, where they lie, if PrepareOutputs is called before the worker writes again.
  // INVALID_ARGUMENT where they are not what they should be.
  Result<std::vector<WorkerAnswer>> TakeAnswers(const WorkerPacket& packet, size_t expected,
                                                bool may_hand_out) EXCLUDES(mu_);

 private:
  explicit WorkerSession(std::unique_ptr<WorkerProcess> process) : process_(std::move(process)) {}

  std::shared_ptr<Slab> FindOutputs(uint32_t id) EXCLUDES(mu_);
  Status MapLocked(const std::shared_ptr<Slab>& slab, bool is_for_outputs) REQUIRES(mu_);
  bool UnmapUnused() REQUIRES(mu_);
  bool HasRoomForHandOut(const std::shared_ptr<Slab>& slab) EXCLUDES(mu_);
  Status TakeOutput(const std::shared_ptr<Slab>& slab, bool may_hand_out,
                    const WorkerOutput& output, WorkerAnswer::Output* taken);

  // Constant after construction.
  const std::unique_ptr<WorkerProcess> process_;

  Mutex mu_;
  // Guarded by mu_.
  std::string killed_how_ GUARDED_BY(mu_);
  bool has_ended_ GUARDED_BY(mu_) = false;
  std::vector<std::shared_ptr<Slab>> outputs_ GUARDED_BY(mu_);
  std::map<uint32_t, std::weak_ptr<Slab>> mapped_ GUARDED_BY(mu_);
};

}  // namespace penstock
