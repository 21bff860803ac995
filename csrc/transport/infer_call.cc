#include "transport/infer_call.h"

#include <utility>
#include <vector>

#include "base/strcat.h"
#include "engine/engine.h"
#include "transport/connection.h"
#include "transport/io_thread.h"

namespace penstock {
namespace {

constexpr const char* kShuttingDown =
    "GRPC server is shutting down and has stopped accepting new requests.";

// The keys may change while a call waits for its verification, which then counts no more.
constexpr int kMaxVerifications = 3;

std::shared_ptr<const Caller> Identify(Connection& connection, const RequestHead& head) {
  AccessControl& access = connection.io().engine().admission().access();
  if (!access.is_active()) return nullptr;
  std::vector<CallHeader> headers;
  headers.reserve(head.metadata().size());
  for (const auto& [name, value] : head.metadata()) headers.emplace_back(name, value);
  return std::make_shared<const Caller>(access.Identify(headers, connection.name()));
}

}  // namespace

InferCall::InferCall(Connection& connection, const RequestHead& head)
    : Call(connection, head),
      is_stream_(head.is_stream_infer()),
      ends_at_error_(head.ends_at_error()),
      caller_(Identify(connection, head)) {}

void InferCall::OnStart() {
  if (!is_stream_) return;
  is_closing_ = io().is_closing();
  if (IsVerified()) Authorize();
  if (is_closing_) FinishStream();
}

// A stream is refused at its start, before it has sent anything.
void InferCall::Authorize() {
  is_authorized_ = true;
  if (caller_ == nullptr) return;
  const Status status = io().engine().admission().Authorize(caller_.get(), CallGroup::kInference);
  if (!status.ok()) Finish(status);
}

// False: the caller's token is being verified, and Verified follows.
bool InferCall::IsVerified() {
  if (caller_ == nullptr || verifications_ >= kMaxVerifications) return true;
  const AccessControl& access = io().engine().admission().access();
  if (!access.NeedsVerification(*caller_, CallGroup::kInference)) return true;
  if (handle_ == nullptr) {
    CallHandle::Facts facts;
    facts.path = is_stream_ ? "/inference.GRPCInferenceService/ModelStreamInfer"
                            : "/inference.GRPCInferenceService/ModelInfer";
    facts.peer = connection()->peer();
    facts.connection = connection()->name();
    facts.deadline_ns = deadline_ns_;
    handle_ = std::make_shared<CallHandle>(std::move(facts), caller_, io().mailbox(), this);
  }
  gate_ = Gate::kVerifying;
  verifications_ += 1;
  io().events().Push({handle_, CallEvent::Kind::kVerify});
  return false;
}

void InferCall::Verified(const Status& status) {
  if (gate_ != Gate::kVerifying || is_finished()) return;
  gate_ = Gate::kOpen;
  if (!status.ok()) {
    Finish(status);
    Abandon(/*cancels=*/true);
    return;
  }
  if (is_stream_ && !is_authorized_) {
    if (!IsVerified()) return;
    Authorize();
  } else if (std::exchange(has_held_, false)) {
    OnMessage(std::move(held_));
    if (gate_ != Gate::kOpen) return;
  }
  Deliver();
}

bool InferCall::WantsMessage() const {
  if (gate_ != Gate::kOpen) return false;
  return !is_stream_ ||
         (is_authorized_ && !is_closing_ && open_ < io().options().max_inflight_per_stream);
}

void InferCall::OnMessage(MessageBytes message) {
  if (!is_stream_ && has_held_) {
    Finish(Unimplemented("ModelInfer takes one message, and got a second one"));
    return;
  }
  if (!IsVerified() || !is_stream_) {
    held_ = std::move(message);
    has_held_ = true;
    return;
  }
  Submit(std::move(message));
}

void InferCall::OnLastMessage() {
  has_last_ = true;
  if (is_stream_) {
    FinishStream();
  } else if (!has_held_) {
    Finish(Unimplemented("ModelInfer takes one message, and got none"));
  } else {
    has_held_ = false;
    Submit(std::move(held_));
  }
}

void InferCall::Submit(MessageBytes message) {
  verifications_ = 0;
  ReplyRef reply(new (io().memory())
                     Reply(*this, InferRequestPool::Shared().Get(), std::move(message)));
  InferRequest& request = AsInfer(reply->request);
  request.message = reply->message();
  request.is_stream = is_stream_;
  request.deadline_ns = deadline_ns_;
  request.max_response_bytes = io().options().max_message_bytes;
  open_ += 1;
  if (!is_stream_) {
    pending_.Append(reply);
    io().Infer(reply, caller_.get());
    if (access_record() != nullptr) NoteRequest(request);
    return;
  }
  decoupled_.push_back(reply);  // whether it is, the engine says
  io().Infer(reply, caller_.get());
  if (access_record() != nullptr) NoteRequest(request);
  if (request.is_decoupled) return;
  decoupled_.pop_back();
  pending_.Append(std::move(reply));
}

// For the access log; of a stream the first counts.
void InferCall::NoteRequest(const InferRequest& request) {
  AccessRecord& record = *access_record();
  if (!record.model.view().empty()) return;
  record.model.Set(request.view.model_name);
  record.version.Set(request.version != nullptr ? request.version->version_text()
                                                : request.view.model_version);
  if (!request.view.id.empty()) record.request_id.Set(request.view.id);
}

// A response that cannot be made fails its request; on a stream that is a reply too.
void InferCall::Prepare(Reply* reply) {
  const RequestRef ref = reply->request;  // encoding it lets go of it
  InferRequest& request = AsInfer(ref);
  const TransportOptions& options = io().options();
  const auto make = [&](Compression compression) {
    return reply->MakeReady(options.max_message_bytes, compression,
                            options.response_compression_level);
  };
  if (request.status.ok()) request.status = make(reply_compression());
  if (!request.status.ok() && is_stream_ && !make(Compression::kIdentity).ok()) {
    request.view.id = {};  // as long as a client likes; without it a failure fits
    if (Status failed = make(Compression::kIdentity); !failed.ok()) request.status = failed;
  }
  reply->status = request.status;
}

void InferCall::SendOutcomes() {
  while (!pending_.empty() && pending_.front()->is_done) {
    ReplyRef reply = pending_.PopFront();
    reply->call = nullptr;
    if (is_stream_) {
      SendStreamed(std::move(reply));
    } else {
      SendUnary(std::move(reply));
    }
  }
  if (is_stream_) FinishStream();
}

void InferCall::SendResponses(const ReplyRef& reply, std::vector<ResponseBlock>* blocks) {
  for (ResponseBlock& block : *blocks) {
    if (is_finished() || !reply->failure.ok()) return;
    reply->failure = SendBlock(reply, std::move(block));
    // Its model may have finished long before: then the failure counts when the outcome comes.
    if (!reply->failure.ok()) AsInfer(reply->request).channel->Fail(reply->failure);
  }
}

void InferCall::OnFoundDecoupled(const ReplyRef& reply) {
  decoupled_.push_back(reply);
  pending_.Remove(reply.get());
  SendOutcomes();  // those behind it may be done
}

Status InferCall::SendBlock(const ReplyRef& reply, ResponseBlock block) {
  size_t sent_bytes = block.size_bytes;
  if (reply_compression() != Compression::kIdentity) {
    PENSTOCK_ASSIGN_OR_RETURN(
        block.bytes,
        CompressBlock(block, reply_compression(), io().options().response_compression_level));
    sent_bytes = block.bytes.size();
  }
  MessageBytes bytes(std::move(block.bytes), sent_bytes, io().budget());
  if (!bytes.HoldAll()) return ByteBudgetExceeded(io().budget());
  ReplyRef part(new (io().memory()) Reply(reply, AsInfer(reply->request).channel, std::move(bytes),
                                          block.count, block.size_bytes));
  reply->unsent_parts += 1;
  Send(std::move(part));
  return Status::Ok();
}

void InferCall::EndResponses(const ReplyRef& reply) {
  std::erase_if(decoupled_, [&](const ReplyRef& other) { return other.get() == reply.get(); });
  reply->call = nullptr;
  if (!reply->ends_by_parts) {
    SendStreamed(reply);
  } else if (reply->unsent_parts == 0) {
    OnMessagesSent(1);
  }
  FinishStream();
}

void InferCall::OnPartSent(const Reply& part) {
  Reply& whole = *part.whole;
  whole.unsent_parts -= 1;
  part.channel->Taken(part.count, part.room_bytes);
  if (whole.ends_by_parts && whole.unsent_parts == 0) OnMessagesSent(1);
}

void InferCall::SendUnary(ReplyRef reply) {
  Status status = reply->status;
  if (status.code() == StatusCode::kNotFound && !io().has_loaded()) {
    status = Unavailable(StrCat("the server is still loading models: ", status.message()));
  }
  if (status.ok()) Send(std::move(reply));
  Finish(status);
}

void InferCall::SendStreamed(ReplyRef reply) {
  if (!reply->status.ok() && ends_at_error_) {
    Finish(reply->status);
    Abandon(/*cancels=*/true);
    return;
  }
  Send(std::move(reply));
}

// Once everything that was read has been answered.
void InferCall::FinishStream() {
  if (!pending_.empty() || !decoupled_.empty() || is_finished()) return;
  if (is_closing_) {
    Finish(Unavailable(kShuttingDown));
  } else if (has_last_) {
    Finish(Status::Ok());
  }
}

void InferCall::OnClosing() {
  if (!is_stream_) return;
  is_closing_ = true;
  FinishStream();
}

void InferCall::OnMessagesSent(size_t count) {
  open_ -= count;
  if (is_stream_) Deliver();
}

void InferCall::OnEnd(CallEnd end) {
  if (handle_ != nullptr) handle_->Forget();
  held_ = MessageBytes();
  // Past its deadline the engine ends a queued request by itself.
  Abandon(/*cancels=*/end == CallEnd::kCancelled);
}

void InferCall::Abandon(bool cancels) {
  while (!pending_.empty()) {
    const ReplyRef reply = pending_.PopFront();
    reply->call = nullptr;
    if (cancels && !reply->is_done) io().engine().Cancel(reply->request);
  }
  // These may run on for as long as they like: their model is told in any case.
  while (!decoupled_.empty()) {
    const ReplyRef reply = std::move(decoupled_.back());
    decoupled_.pop_back();
    reply->call = nullptr;
    io().engine().Cancel(reply->request);
  }
}

}  // namespace penstock
