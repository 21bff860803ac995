#include "native/grpc_carrier.h"

#include <utility>

#include "base/strcat.h"
#include "load/client.h"
#include "load/message.h"

namespace penstock::loadgen {
namespace {

constexpr int64_t kAskNs = int64_t{5} * 1'000'000'000;
constexpr uint32_t kNameField = 1;  // of ServerMetadataResponse
constexpr uint32_t kVersionField = 2;

}  // namespace

Result<std::unique_ptr<Carrier>> GrpcCarrier::Connect(load::FleetOptions options,
                                                      const std::vector<std::string>* requests,
                                                      Carrier::Sink* sink, int wake_fd) {
  std::unique_ptr<GrpcCarrier> made(new GrpcCarrier(requests, sink));
  PENSTOCK_ASSIGN_OR_RETURN(made->fleet_, load::Fleet::Connect(std::move(options), made.get()));
  made->fleet_->WatchAlso(wake_fd);
  return std::unique_ptr<Carrier>(std::move(made));
}

void GrpcCarrier::Send(size_t token, size_t sample) {
  const Status status = fleet_->Send({token, requests_[sample], "", nullptr});
  if (!status.ok()) OnAnswer(token, {load::Outcome::kConnectionLost, status.message(), ""});
}

void GrpcCarrier::Turn() { fleet_->Poll(kNever); }

void GrpcCarrier::Abandon() {
  fleet_->Abandon(load::Outcome::kNoAnswer, "the system under test was closed");
}

void GrpcCarrier::OnAnswer(uint64_t token, const load::Answer& answer) {
  sink_.OnAnswer(token, answer);
}

Result<std::string> AskServerName(load::FleetOptions options) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::unique_ptr<load::Client> client,
                            load::Client::Start(std::move(options)));
  PENSTOCK_RETURN_IF_ERROR(client->Submit({{0, ""}}));
  const auto taken = client->Take(kAskNs);
  if (taken.empty()) return Unavailable("the server does not say its name");
  const load::ClientCompletion& answer = taken.front();
  if (answer.outcome != load::Outcome::kOk) {
    const std::string_view outcome = load::OutcomeName(static_cast<size_t>(answer.outcome));
    return Unavailable(StrCat("the server does not say its name: ", outcome, " ", answer.payload));
  }
  const auto name = load::FindField(answer.payload, kNameField);
  const auto version = load::FindField(answer.payload, kVersionField);
  if (!name) return Unavailable("the server's metadata has no name");
  return StrCat(name->payload, " ", version ? version->payload : std::string_view());
}

}  // namespace penstock::loadgen
