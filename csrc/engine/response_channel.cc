#include "engine/response_channel.h"

#include <algorithm>
#include <exception>
#include <iterator>
#include <new>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"
#include "engine/model_version.h"

namespace penstock {
namespace {

constexpr size_t kMaxProtobufBytes = (size_t{1} << 31) - 1;
constexpr size_t kPrefixBytes = 5;

// What a backend is given: the last one to go ends what nobody finished.
class Sender final : public ResponseSender {
 public:
  explicit Sender(std::shared_ptr<ResponseChannel> channel) : channel_(std::move(channel)) {}
  ~Sender() override {
    if (channel_->is_finished()) return;
    channel_->Finish(Internal(
        StrCat(channel_->spec().DisplayName(), " dropped a request without finishing it")));
  }
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;

  Status Send(std::vector<BatchOutput> outputs) override {
    return channel_->Send(std::move(outputs));
  }
  Status SendLast(std::vector<BatchOutput> outputs) override {
    return channel_->Send(std::move(outputs), /*is_last=*/true);
  }
  void Finish(const Status& status) override { channel_->Finish(status); }
  bool is_cancelled() const override { return channel_->is_cancelled(); }
  size_t room() const override { return channel_->room(); }
  void NotifyRoom(std::function<void()> on_room) override {
    channel_->NotifyRoom(std::move(on_room));
  }
  void NotifyCancelled(std::function<void()> on_cancelled) override {
    channel_->NotifyCancelled(std::move(on_cancelled));
  }

 private:
  const std::shared_ptr<ResponseChannel> channel_;
};

// One response behind gRPC's prefix: not compressed, and its length.
void EncodeMessage(const InferResponseView& response, std::span<uint8_t> out) {
  const size_t size = out.size() - kPrefixBytes;
  out[0] = 0;
  for (size_t i = 1; i < kPrefixBytes; ++i) {
    out[i] = static_cast<uint8_t>(size >> (8 * (kPrefixBytes - 1 - i)));
  }
  EncodeStreamInferResponse(response, out.subspan(kPrefixBytes));
}

}  // namespace

std::vector<std::span<const uint8_t>> MessagesOf(const ResponseBlock& block) {
  std::vector<std::span<const uint8_t>> messages;
  messages.reserve(block.count);
  std::span<const uint8_t> rest = block.bytes.span().first(block.size_bytes);
  while (!rest.empty()) {
    size_t size = 0;
    for (const uint8_t byte : rest.subspan(1, kPrefixBytes - 1)) size = size << 8 | byte;
    messages.push_back(rest.subspan(kPrefixBytes, size));
    rest = rest.subspan(kPrefixBytes + size);
  }
  return messages;
}

std::shared_ptr<ResponseSender> ResponseChannel::Open(const std::shared_ptr<ResponseChannel>& self,
                                                      const RequestRef& request) {
  auto sender = std::make_shared<Sender>(self);
  MutexLock sending(self->send_mu_);
  self->phase_ = Phase::kExecuting;
  self->request_ = request;
  return sender;
}

std::optional<Status> ResponseChannel::Settle(const BatchTimes& times) {
  RequestRef settled;  // goes without the lock
  MutexLock sending(send_mu_);
  if (!is_finished_.load()) {
    phase_ = Phase::kKept;
    times_ = times;
    return std::nullopt;
  }
  phase_ = Phase::kSettled;
  settled = std::exchange(request_, RequestRef());
  return outcome_;
}

Status ResponseChannel::Send(std::vector<BatchOutput> outputs, bool is_last) {
  Status sent;
  {
    MutexLock sending(send_mu_);
    if (is_cancelled_.load()) return Cancelled("the client has gone");
    if (is_finished_.load() || has_last_) {
      return FailedPrecondition("the request was finished before");
    }
    try {
      sent = Deliver(std::move(outputs), is_last);
      has_last_ = is_last && sent.ok();
    } catch (const std::bad_alloc&) {
      sent = ResourceExhausted("no memory for the response");
    }
  }
  if (!sent.ok() || is_last) End(sent, By::kModel);
  return sent;
}

Status ResponseChannel::Deliver(std::vector<BatchOutput> outputs, bool is_last) {
  InferRequest& request = AsInfer(request_);
  sent_ += 1;
  if (use_ == Use::kOutputs) {
    // One too many changes nothing: how many there are is said at the end.
    return sent_ == 1 ? KeepOutputs(request, std::move(outputs)) : Status::Ok();
  }
  views_.clear();
  owned_.clear();
  PENSTOCK_RETURN_IF_ERROR(CutAll(request, outputs, {views_, owned_}));
  return use_ == Use::kBlocks ? Encode(request, is_last) : Status::Ok();
}

// A decoupled model may leave outputs out of a response; no other may.
Status ResponseChannel::CutAll(const InferRequest& request, const std::vector<BatchOutput>& outputs,
                               const CutOutputs& to) {
  for (size_t i = 0; i < request.wanted.size(); ++i) {
    const OutputSpec& spec = spec_->outputs[request.wanted[i].index];
    const auto found = std::find_if(outputs.begin(), outputs.end(), [&](const BatchOutput& output) {
      return output.index == spec.backend_index;
    });
    if (found == outputs.end()) {
      if (spec_->is_decoupled) continue;
      return Internal(
          StrCat(spec_->DisplayName(), " gave a response without output '", spec.name, "'"));
    }
    PENSTOCK_RETURN_IF_ERROR(CutOutput(*spec_, spec, *found, request.rows, &cut_));
    PENSTOCK_RETURN_IF_ERROR(AppendOutput(*spec_, cut_, 0, request, i, to));
  }
  return Status::Ok();
}

Status ResponseChannel::KeepOutputs(InferRequest& request, std::vector<BatchOutput> outputs) {
  auto kept = std::make_shared<BatchOutputs>();
  kept->tensors = std::move(outputs);
  request.batch_outputs = kept;
  return CutAll(request, kept->tensors, {request.outputs, request.owned_outputs});
}

Status ResponseChannel::Encode(InferRequest& request, bool is_last) {
  if (IsOverrun()) {
    return ResourceExhausted(StrCat(spec_->DisplayName(),
                                    " sent on without room: ", untaken_.load(), " responses of ",
                                    untaken_bytes_.load(), " bytes wait for the client"));
  }
  const InferResponseView response = request.ResponseViewOf(views_, /*is_final=*/is_last);
  const size_t size = StreamInferResponseSize(response);
  if (size > kMaxProtobufBytes) {
    return Internal("the response is larger than a protobuf message can be (2 GiB)");
  }
  if (request.max_response_bytes != 0 && size > request.max_response_bytes) {
    return ResourceExhausted(
        StrCat("Sent message larger than max (", size, " vs. ", request.max_response_bytes, ")"));
  }
  const bool is_first = Append(response, kPrefixBytes + size);
  request.has_sent_final = is_last;
  if (is_first) {
    request.completions->Push(RequestRef(&request));
    request.completions->Signal();
  }
  return Status::Ok();
}

// True: the completion queue is to be told. What is large gets a block of its own, and the time that
// copying it takes is nobody else's.
bool ResponseChannel::Append(const InferResponseView& response, size_t size_bytes) {
  ResponseBlock own;
  if (size_bytes > kBlockBytes) {
    own = {HostPool::Shared().Allocate(size_bytes), size_bytes, 1};
    EncodeMessage(response, own.bytes.span());
  }
  MutexLock lock(mu_);
  if (size_bytes > kBlockBytes) {
    blocks_.push_back(std::move(own));
  } else {
    if (blocks_.empty() || blocks_.back().bytes.size() - blocks_.back().size_bytes < size_bytes) {
      const size_t least = blocks_.empty() ? kFirstBlockBytes : kBlockBytes;
      blocks_.push_back({HostPool::Shared().Allocate(std::max(least, size_bytes))});
    }
    ResponseBlock& block = blocks_.back();
    EncodeMessage(response, block.bytes.span().subspan(block.size_bytes, size_bytes));
    block.size_bytes += size_bytes;
    block.count += 1;
  }
  untaken_.fetch_add(1);
  untaken_bytes_.fetch_add(size_bytes);
  return !std::exchange(is_pushed_, true);
}

void ResponseChannel::Finish(const Status& status) { End(status, By::kModel); }

void ResponseChannel::Fail(const Status& status) { End(status, By::kEngine); }

void ResponseChannel::End(const Status& status, By by) {
  RequestRef kept;
  BatchTimes times;
  Status outcome;
  {
    MutexLock sending(send_mu_);
    if (is_finished_.load()) return;
    const bool is_miscounted = status.ok() && !spec_->is_decoupled && sent_ != 1;
    outcome_ = is_miscounted ? Internal(StrCat("expected a single response, got ", sent_)) : status;
    if (by == By::kEngine) is_cancelled_.store(true);
    is_finished_.store(true);
    finished_.NotifyAll();
    if (phase_ == Phase::kKept) {
      phase_ = Phase::kSettled;
      kept = std::exchange(request_, RequestRef());
      times = times_;
      outcome = outcome_;
    }
  }
  if (by == By::kEngine) {
    TellRoom();
    TellCancelled();
  } else {
    DropCallbacks();
  }
  if (kept) AsInfer(kept).FinishKept(times, outcome);
}

size_t ResponseChannel::room() const {
  const size_t untaken = untaken_.load();
  if (untaken >= kMaxUntaken || untaken_bytes_.load() >= kMaxUntakenBytes) return 0;
  return kMaxUntaken - untaken;
}

bool ResponseChannel::IsOverrun() const {
  return untaken_.load() >= kOverrun * kMaxUntaken ||
         untaken_bytes_.load() >= kOverrun * kMaxUntakenBytes;
}

void ResponseChannel::NotifyRoom(std::function<void()> on_room) {
  {
    MutexLock lock(mu_);
    on_room_.swap(on_room);
  }
  TellRoom();
}

void ResponseChannel::NotifyCancelled(std::function<void()> on_cancelled) {
  {
    MutexLock lock(mu_);
    on_cancelled_.swap(on_cancelled);
  }
  if (is_cancelled()) TellCancelled();
}

void ResponseChannel::TellRoom() noexcept {
  std::function<void()> on_room;
  {
    MutexLock lock(mu_);
    if (on_room_ == nullptr || (room() == 0 && !is_cancelled())) return;
    on_room_.swap(on_room);
  }
  Call(on_room);
}

void ResponseChannel::TellCancelled() noexcept {
  std::function<void()> on_cancelled;
  {
    MutexLock lock(mu_);
    on_cancelled_.swap(on_cancelled);
  }
  if (on_cancelled != nullptr) Call(on_cancelled);
}

// A model that has ended by itself is told nothing more.
void ResponseChannel::DropCallbacks() {
  std::function<void()> on_room;  // they go without the lock
  std::function<void()> on_cancelled;
  MutexLock lock(mu_);
  on_room_.swap(on_room);
  on_cancelled_.swap(on_cancelled);
}

// Whatever a backend's callback does, its caller is a transport or a drain.
void ResponseChannel::Call(const std::function<void()>& told) const noexcept {
  try {
    told();
  } catch (const std::exception& error) {
    Log(LogLevel::kError, spec_->model_name, StrCat("threw when it was told: ", error.what()));
  } catch (...) {
    Log(LogLevel::kError, spec_->model_name, "threw when it was told");
  }
}

void ResponseChannel::OnCancelled() noexcept {
  is_cancelled_.store(true);
  TellRoom();
  TellCancelled();
}

void ResponseChannel::PushDone(InferRequest& request) {
  bool is_first = false;
  {
    MutexLock lock(mu_);
    is_done_ = true;
    is_first = !std::exchange(is_pushed_, true);
  }
  if (is_first) request.completions->Push(RequestRef(&request));
}

bool ResponseChannel::Take(std::vector<ResponseBlock>* blocks) {
  MutexLock lock(mu_);
  is_pushed_ = false;
  if (blocks->empty()) {  // which cannot fail
    blocks->swap(blocks_);
    return is_done_;
  }
  std::move(blocks_.begin(), blocks_.end(), std::back_inserter(*blocks));
  blocks_.clear();
  return is_done_;
}

void ResponseChannel::Taken(size_t count, size_t size_bytes) {
  untaken_.fetch_sub(count);
  untaken_bytes_.fetch_sub(size_bytes);
  TellRoom();
}

std::optional<Status> ResponseChannel::WaitFinished(Clock& clock, int64_t deadline_ns) {
  MutexLock sending(send_mu_);
  while (!is_finished_.load()) {
    if (clock.NowNs() >= deadline_ns) return std::nullopt;
    clock.WaitUntil(finished_, send_mu_, deadline_ns);
  }
  return outcome_;
}

}  // namespace penstock
