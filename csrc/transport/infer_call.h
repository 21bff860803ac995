// InferCall: ModelInfer and ModelStreamInfer, which never reach Python.

#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "engine/access.h"
#include "transport/call.h"
#include "transport/call_handle.h"

namespace penstock {

// A unary call's one request is submitted when the client has sent all of it. A stream's requests
// are submitted as they come, at most TransportOptions::max_inflight_per_stream of them not yet
// answered: beyond that nothing is read, and HTTP/2's flow control tells the client. Answers go in
// the order of the requests, but for decoupled models: their responses go as they come, and a
// response that the client does not take stops its model (ResponseChannel).
//
// Threading, Lifecycle: as Call.
// Ownership: a request that the engine has holds a reference on its Reply, not on the call; the call
// holds one on each reply that it has not sent.
class InferCall final : public Call {
 public:
  InferCall(Connection& connection, const RequestHead& head);

  // A request has its outcome: fixes what is to be sent, also where that cannot be.
  void Prepare(Reply* reply);
  // Sends what is next in order and has been prepared.
  void SendOutcomes();
  // A decoupled request has responses, or its outcome, which was prepared if it is a message too.
  void SendResponses(const ReplyRef& reply, std::vector<ResponseBlock>* blocks);
  void EndResponses(const ReplyRef& reply);
  // A request that waited for its model to be loaded turned out to be decoupled.
  void OnFoundDecoupled(const ReplyRef& reply);

  void Verified(const Status& status) override;
  void OnClosing() override;

 private:
  enum class Gate { kOpen, kVerifying };

  void OnStart() override;
  bool WantsMessage() const override;
  void OnMessage(MessageBytes message) override;
  void OnLastMessage() override;
  void OnEnd(CallEnd end) override;
  void OnMessagesSent(size_t count) override;
  void OnPartSent(const Reply& part) override;

  bool IsVerified();
  void Authorize();
  void Submit(MessageBytes message);
  void NoteRequest(const InferRequest& request);
  Status SendBlock(const ReplyRef& reply, ResponseBlock block);
  void SendUnary(ReplyRef reply);
  void SendStreamed(ReplyRef reply);
  void FinishStream();
  void Abandon(bool cancels);

  // Constant after construction.
  const bool is_stream_;
  const bool ends_at_error_;
  std::shared_ptr<const Caller> caller_;  // null: nobody asks who calls

  std::shared_ptr<CallHandle> handle_;  // while or after a token is verified
  Gate gate_ = Gate::kOpen;
  int verifications_ = 0;       // since the last message
  bool is_authorized_ = false;  // a stream, at its start
  bool is_closing_ = false;
  bool has_last_ = false;  // the client sends no more
  MessageBytes held_;      // a unary call's message, until its end has come
  bool has_held_ = false;

  ReplyList pending_;                // with the engine or not yet sent, in order of arrival
  std::vector<ReplyRef> decoupled_;  // with the engine, and in no order
  size_t open_ = 0;                  // submitted and not yet sent
};

}  // namespace penstock
