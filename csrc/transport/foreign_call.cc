#include "transport/foreign_call.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "protocol/field_reader.h"
#include "transport/connection.h"
#include "transport/grpc_text.h"
#include "transport/io_thread.h"

namespace penstock {
namespace {

// Values of "-bin" names as bytes; several may share one header. What is no base64 stays as it is.
Metadata Decoded(const Metadata& sent) {
  Metadata metadata;
  for (const auto& [name, value] : sent) {
    if (!name.ends_with("-bin")) {
      metadata.emplace_back(name, value);
      continue;
    }
    size_t begin = 0;
    while (begin <= value.size()) {
      const size_t end = std::min(value.find(',', begin), value.size());
      const std::string one = value.substr(begin, end - begin);
      metadata.emplace_back(name, DecodeBinaryHeader(one).value_or(one));
      begin = end + 1;
    }
  }
  return metadata;
}

// For the access log: the model that a message of the protocol's own RPCs names. Of those about the
// repository and settings the field before it is another.
void NoteModel(std::span<const uint8_t> message, AccessRecord* record) {
  constexpr std::string_view kService = "/inference.GRPCInferenceService/";
  std::string_view rpc = record->method.view();
  if (!rpc.starts_with(kService)) return;
  rpc.remove_prefix(kService.size());
  const bool is_second = rpc.starts_with("RepositoryModel") || rpc == "TraceSetting";
  if (!is_second && !rpc.starts_with("Model")) return;
  FieldReader reader(message);
  for (Field field; reader.Next(&field);) {
    if (field.type != WireType::length_delimited) continue;
    if (field.number == (is_second ? 2 : 1)) record->model.Set(field.text());
    if (field.number == 2 && !is_second) record->version.Set(field.text());
  }
}

}  // namespace

ForeignCall::ForeignCall(Connection& connection, const RequestHead& head)
    : Call(connection, head),
      handle_(std::make_shared<CallHandle>(
          CallHandle::Facts{head.path(), Decoded(head.metadata()), connection.peer(),
                            connection.name(), connection.auth_context(), deadline_ns_},
          nullptr, connection.io().mailbox(), this)) {}

void ForeignCall::OnStart() { Tell(CallEvent::Kind::kStarted); }

void ForeignCall::Read() {
  is_reading_ = true;
  Deliver();
}

void ForeignCall::OnMessage(MessageBytes message) {
  is_reading_ = false;
  if (access_record() != nullptr) NoteModel(message.span(), access_record());
  io().events().Push({handle_, CallEvent::Kind::kMessage, std::move(message)});
}

void ForeignCall::OnLastMessage() {
  is_reading_ = false;
  Tell(CallEvent::Kind::kHalfClosed);
}

void ForeignCall::SendMetadata(const Metadata& metadata) { SendHeaders(metadata); }

void ForeignCall::Write(Buffer message) {
  Send(ReplyRef(new (io().memory()) Reply(std::move(message))));
}

void ForeignCall::End(const Status& status, const Metadata& metadata) { Finish(status, metadata); }

void ForeignCall::OnMessagesSent(size_t count) {
  for (; count != 0; --count) Tell(CallEvent::Kind::kWritten);
}

void ForeignCall::OnEnd(CallEnd end) {
  handle_->Forget();
  io().events().Push({handle_, CallEvent::Kind::kClosed, {}, end});
}

void ForeignCall::Tell(CallEvent::Kind kind) { io().events().Push({handle_, kind}); }

}  // namespace penstock
