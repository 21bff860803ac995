#include "engine/infer_request.h"

#include <utility>

#include "base/utf8.h"
#include "engine/model_version.h"
#include "engine/response_channel.h"

namespace penstock {

InferResponseView InferRequest::ResponseView() const {
  return ResponseViewOf(
      status.ok() ? std::span<const TensorView>(outputs) : std::span<const TensorView>(),
      /*is_final=*/true);
}

InferResponseView InferRequest::ResponseViewOf(std::span<const TensorView> other,
                                               bool is_final) const {
  InferResponseView response;
  response.id = view.id;
  if (version != nullptr) {
    response.model_name = version->spec().model_name;
    response.model_version = version->version_text();
    if (wants_digest) response.digest = version->digest();
  }
  response.outputs = other;
  if (is_stream) response.final_response = is_final;
  return response;
}

// A reply without a text would read as a success.
std::string_view InferRequest::ErrorText() const {
  return status.message().empty() ? StatusCodeName(status.code()) : status.message();
}

size_t InferRequest::EncodedSize() const {
  const InferResponseView response = ResponseView();
  if (!status.ok()) return StreamInferErrorSize(ErrorText(), response);
  return is_stream ? StreamInferResponseSize(response) : InferResponseSize(response);
}

void InferRequest::EncodeTo(std::span<uint8_t> out) const {
  const InferResponseView response = ResponseView();
  if (!status.ok()) {
    EncodeStreamInferError(ErrorText(), response, out);
  } else if (is_stream) {
    EncodeStreamInferResponse(response, out);
  } else {
    EncodeInferResponse(response, out);
  }
}

void InferRequest::HoldSharedMemory() {
  if (!uses_shared_memory()) return;
  holds_shared_memory_ = true;
  version->AddSharedMemoryRequest();
}

void InferRequest::ReleaseSharedMemory() {
  shared_inputs.clear();
  shared_outputs.clear();
  if (std::exchange(holds_shared_memory_, false)) version->RemoveSharedMemoryRequest();
}

bool InferRequest::Take(std::vector<ResponseBlock>* blocks) {
  return !is_decoupled || channel->Take(blocks);
}

// A warm-up has no version, and who waits for it looks at the channel.
void InferRequest::FinishKept(const BatchTimes& times, const Status& outcome) {
  if (version != nullptr) version->FinishKept(*this, times, outcome);
}

void InferRequest::OnCancelled() noexcept {
  if (channel != nullptr) channel->OnCancelled();
}

void InferRequest::ResetBinding() {
  ReleaseSharedMemory();
  key.clear();
  rows = 1;
  priority = 0;
  timeout_us = 0;
  shared_bytes = 0;
  is_over_size = false;
  inputs.clear();
  wanted.clear();
  channel.reset();
  is_decoupled = false;
  wants_empty_final = false;
  wants_digest = false;
  has_sent_final = false;
}

void InferRequest::OnDone(const Status& outcome) noexcept {
  // A backend says what it likes; what goes to clients and to Python is UTF-8.
  const bool is_text = IsValidUtf8(outcome.message());
  status = is_text ? outcome : Status(outcome.code(), ReplaceInvalidUtf8(outcome.message()));
  if (is_decoupled) {
    channel->PushDone(*this);
  } else {
    completions->Push(RequestRef(this));
  }
}

void InferRequest::Dispose() noexcept {
  Clear();
  pool_.Put(this);
}

bool InferRequest::IsSmall() const {
  return view.inputs.capacity() <= kMaxKeptViews && view.outputs.capacity() <= kMaxKeptViews &&
         view.parameters.capacity() <= kMaxKeptViews && view.decoded.capacity() <= kMaxKeptViews;
}

void InferRequest::Clear() {
  ResetForReuse();
  message = {};
  tag = nullptr;
  is_stream = false;
  is_admitted = false;
  completions = nullptr;
  max_response_bytes = 0;
  received_ns = 0;
  background_bytes.reset();
  who.reset();
  waits_in.reset();
  retries = false;
  view.Clear();
  ResetBinding();
  version.reset();
  batch_outputs.reset();
  outputs.clear();
  owned_outputs.clear();
  status = Status();
}

InferRequestPool::InferRequestPool() {
  MutexLock lock(mu_);
  idle_.reserve(kMaxIdle);  // so that Put cannot fail to allocate
}

InferRequestPool::~InferRequestPool() {
  MutexLock lock(mu_);
  for (InferRequest* request : idle_) delete request;
}

RequestRef InferRequestPool::Get() {
  {
    MutexLock lock(mu_);
    if (!idle_.empty()) {
      InferRequest* request = idle_.back();
      idle_.pop_back();
      return RequestRef(request);
    }
  }
  return RequestRef(new InferRequest(*this));  // NOLINT: owned by its reference count from here on
}

InferRequestPool& InferRequestPool::Shared() {
  static auto& pool =
      *new InferRequestPool();  // NOLINT: never destroyed, requests may outlive main
  return pool;
}

void InferRequestPool::Put(InferRequest* request) noexcept {
  if (request->IsSmall()) {
    MutexLock lock(mu_);
    if (idle_.size() < kMaxIdle) {
      idle_.push_back(request);
      return;
    }
  }
  delete request;
}

}  // namespace penstock
