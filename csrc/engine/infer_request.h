// InferRequest: one inference from its message to its response.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/mutex.h"
#include "batcher/batcher.h"
#include "batcher/completion_queue.h"
#include "batcher/request.h"
#include "engine/access.h"
#include "engine/shared_tensor.h"
#include "protocol/infer_request.h"
#include "protocol/infer_response.h"

namespace penstock {

class InferRequestPool;
class ModelVersion;
class ResponseChannel;
struct BatchTimes;
struct ResponseBlock;

// The outputs of one batch, shared by the responses cut from it: a response borrows from the slab
// until it is encoded, on another thread.
struct BatchOutputs {
  std::vector<BatchOutput> tensors;
};

// An output that a request asked for.
struct WantedOutput {
  uint32_t index = 0;           // in VersionSpec::outputs
  uint32_t classification = 0;  // > 0: the top classes instead of the values
};

// Threading: as Request; the results are written by the instance before OnDone and read by the
// consumer after it took the request from the completion queue.
// Ownership: pins its version; borrows the message, which its submitter keeps alive until the
// request has been taken from the queue. Holds the shared memory regions that it names, until its
// batch has run. Pooled: Dispose gives it back to its InferRequestPool.
class InferRequest final : public Request {
 public:
  // Set by the submitter.
  std::span<const uint8_t> message;
  void* tag = nullptr;       // the submitter's own
  bool is_stream = false;    // the response is a ModelStreamInferResponse
  bool is_admitted = false;  // counted in flight: Engine::Release gives the place back
  CompletionQueue* completions = nullptr;  // where the outcome goes; outlives the request
  size_t max_response_bytes = 0;           // of one of several responses; 0 = no bound

  // Set by the engine before it is queued.
  int64_t received_ns = 0;
  PrincipalRef who;  // whose request it is; null where nobody had to say
  // Where it waits, or has waited, for its model to be loaded. Only on the submitter's thread.
  std::shared_ptr<Batcher> waits_in;
  bool retries = false;  // it comes without an outcome, for its submitter to call Engine::Retry
  InferRequestView view;
  std::shared_ptr<ModelVersion> version;      // pin: null when refused before it was found
  std::vector<const InferInputView*> inputs;  // one per VersionSpec input; null = left out
  std::vector<WantedOutput> wanted;           // in the order asked for, or all
  std::shared_ptr<ResponseChannel>
      channel;                     // where the model answers requests one by one, else null
  bool is_decoupled = false;       // the model's responses are none, one or many: see Take
  bool wants_empty_final = false;  // of those, an empty one behind the last, which says so
  bool wants_digest = false;       // the response says which bytes the version was loaded from
  bool has_sent_final = false;     // the last of them says it itself; written by the channel
  // Where tensors lie in shared memory: by VersionSpec input, and in the order of `wanted`. Empty
  // where none of them does.
  std::vector<SharedTensor> shared_inputs;
  std::vector<SharedTensor> shared_outputs;
  std::optional<size_t> background_bytes;  // held of the share of those that clients lowered
  bool is_over_size = false;               // refused for what its inputs there come to

  // Results.
  std::shared_ptr<const BatchOutputs> batch_outputs;
  std::vector<TensorView>
      outputs;  // in the order of `wanted`; borrow from batch_outputs or owned_outputs
  std::vector<Buffer> owned_outputs;
  Status status;

  // Null where that input or output travels in the message.
  const SharedTensor* SharedInput(size_t index) const { return At(shared_inputs, index); }
  const SharedTensor* SharedOutput(size_t index) const { return At(shared_outputs, index); }
  // Bytes of an input. REQUIRES: it is not left out.
  size_t InputBytes(size_t index) const {
    const SharedTensor* const shared = SharedInput(index);
    return shared != nullptr ? shared->size_bytes : inputs[index]->tensor.data.size();
  }
  // Those of them that are gathered in host memory.
  size_t HostBytes(size_t index) const {
    const SharedTensor* const shared = SharedInput(index);
    if (shared == nullptr) return inputs[index]->tensor.data.size();
    return shared->is_on_device ? 0 : shared->size_bytes;
  }
  bool uses_shared_memory() const { return !shared_inputs.empty() || !shared_outputs.empty(); }
  // Between these two, `version` does not run its batches on submitting threads. Each does nothing
  // where it has nothing to do; REQUIRES: `version` is set.
  void HoldSharedMemory();
  // Also lets go of the regions: their last reference closes a file.
  void ReleaseSharedMemory();

  // For whoever found the request in its completion queue. A decoupled request is found there each
  // time that it has responses, which are appended to `blocks`, and when it is done; any other once,
  // when it is done. True: it is done, and has its status.
  bool Take(std::vector<ResponseBlock>* blocks);
  // Whether the outcome is a message too: always, but for a success that was said in responses.
  bool has_final_message() const {
    return !status.ok() || !is_decoupled || (wants_empty_final && !has_sent_final);
  }
  // The last act of a request whose batch was over before it was finished.
  void FinishKept(const BatchTimes& times, const Status& outcome);

  // Undoes a BindRequest, so that the request can be bound to another version.
  void ResetBinding();

  // The response as the encoder takes it: an error where !status.ok() (only on streams).
  InferResponseView ResponseView() const;
  // The same with other outputs, as one of several responses.
  InferResponseView ResponseViewOf(std::span<const TensorView> other, bool is_final) const;
  std::string_view ErrorText() const;
  // Size and bytes of the encoded response. REQUIRES: status.ok() || is_stream; it is done.
  size_t EncodedSize() const;
  void EncodeTo(std::span<uint8_t> out) const;
  // The same without the bytes of `outputs`, see EncodeInferResponseFraming. REQUIRES: status.ok().
  size_t FramingSize() const { return InferResponseFramingSize(ResponseView(), is_stream); }
  void EncodeFramingTo(std::span<uint8_t> out, std::vector<size_t>* cuts) const {
    EncodeInferResponseFraming(ResponseView(), is_stream, out, cuts);
  }

  // Hands it to its submitter, who calls Engine::Retry. REQUIRES: a batcher has given it back.
  void GiveBack() noexcept {
    retries = true;
    completions->Push(RequestRef(this));
    Wake();
  }

  // Ends a request that no batcher has accepted: the refusals' way to the completion queue.
  void Refuse(const Status& why) noexcept {
    OnDone(why);
    Wake();
  }

 private:
  friend class InferRequestPool;
  explicit InferRequest(InferRequestPool& pool) : pool_(pool) {}

  void OnDone(const Status& outcome) noexcept override;
  void Wake() noexcept override { completions->Signal(); }
  void OnCancelled() noexcept override;
  void Dispose() noexcept override;
  void Clear();
  static const SharedTensor* At(const std::vector<SharedTensor>& tensors, size_t index) {
    return tensors.empty() || tensors[index].region == nullptr ? nullptr : &tensors[index];
  }
  // False: a client with thousands of tensors made its vectors so large that the pool, which keeps
  // their capacity, must not keep it.
  bool IsSmall() const;

  static constexpr size_t kMaxKeptViews = 64;

  // Constant after construction.
  InferRequestPool& pool_;

  bool holds_shared_memory_ = false;
};

// Requests that are used again, with the capacity of their vectors.
// Threading: thread-safe.
// Ownership: owns idle requests; outlives those handed out (Shared() always does).
class InferRequestPool {
 public:
  InferRequestPool();
  ~InferRequestPool();
  InferRequestPool(const InferRequestPool&) = delete;
  InferRequestPool& operator=(const InferRequestPool&) = delete;

  // A fresh request.
  RequestRef Get();
  // The process-wide pool; never destroyed.
  static InferRequestPool& Shared();

 private:
  friend class InferRequest;
  static constexpr size_t kMaxIdle = 1024;

  void Put(InferRequest* request) noexcept;

  Mutex mu_;
  // Guarded by mu_.
  std::vector<InferRequest*> idle_ GUARDED_BY(mu_);
};

// The InferRequest behind a reference: the engine queues no other kind.
inline InferRequest& AsInfer(const RequestRef& request) {
  return static_cast<InferRequest&>(*request);
}

}  // namespace penstock
