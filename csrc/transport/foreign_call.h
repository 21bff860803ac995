// ForeignCall: a call of the Python lane. Its handler is elsewhere, and is told by events.

#pragma once

#include <memory>

#include "transport/call.h"
#include "transport/call_handle.h"

namespace penstock {

// Threading, Lifecycle: as Call.
// Ownership: shares its handle with whoever handles the call.
class ForeignCall final : public Call {
 public:
  ForeignCall(Connection& connection, const RequestHead& head);

  void Read() override;
  void SendMetadata(const Metadata& metadata) override;
  void Write(Buffer message) override;
  void End(const Status& status, const Metadata& metadata) override;

 private:
  void OnStart() override;
  bool WantsMessage() const override { return is_reading_; }
  void OnMessage(MessageBytes message) override;
  void OnLastMessage() override;
  void OnEnd(CallEnd end) override;
  void OnMessagesSent(size_t count) override;

  void Tell(CallEvent::Kind kind);

  const std::shared_ptr<CallHandle> handle_;
  bool is_reading_ = false;  // a Read has not been answered
};

}  // namespace penstock
