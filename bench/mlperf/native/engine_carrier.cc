#include "native/engine_carrier.h"

#include <poll.h>

#include <array>
#include <utility>

namespace penstock::loadgen {

EngineCarrier::EngineCarrier(std::shared_ptr<Engine> engine,
                             const std::vector<std::string>* requests, Carrier::Sink* sink,
                             int wake_fd)
    : engine_(std::move(engine)),
      requests_(*requests),
      sink_(*sink),
      wake_fd_(wake_fd),
      completions_(engine_->MakeCompletionQueue()) {}

void EngineCarrier::Send(size_t token, size_t sample) {
  const std::string& message = requests_[sample];
  RequestRef ref = InferRequestPool::Shared().Get();
  InferRequest& request = AsInfer(ref);
  request.message = {reinterpret_cast<const uint8_t*>(message.data()), message.size()};
  request.completions = completions_.get();
  request.tag = reinterpret_cast<void*>(token);  // NOLINT: a number, for which there is room
  engine_->Infer(ref, {.wake = Wake::kLater});
  ++in_flight_;
  const auto& version = request.version;
  if (version != nullptr && (unflushed_.empty() || unflushed_.back() != version)) {
    unflushed_.push_back(version);
  }
}

void EngineCarrier::Turn() {
  Flush();
  if (taken_.empty()) {
    std::array<pollfd, 2> waiting{pollfd{completions_->fd(), POLLIN, 0},
                                  pollfd{wake_fd_, POLLIN, 0}};
    poll(waiting.data(), waiting.size(), -1);
    completions_->Take(&taken_);
  }
  Deliver();
}

// Runs what is quick here, wakes instances for the rest, and takes what is done.
void EngineCarrier::Flush() {
  const CompletionQueue::Turn turn(*completions_);
  for (const auto& version : unflushed_) {
    if (!version->TryRunHere()) version->Flush();
  }
  unflushed_.clear();
  completions_->Take(&taken_);
}

void EngineCarrier::Deliver() {
  for (const RequestRef& ref : taken_) DeliverOne(AsInfer(ref));
  in_flight_ -= taken_.size();
  taken_.clear();
}

void EngineCarrier::DeliverOne(InferRequest& request) {
  const auto token = reinterpret_cast<size_t>(request.tag);
  if (request.status.ok()) {
    message_.resize(request.EncodedSize());
    request.EncodeTo(message_);
    const std::string_view bytes(reinterpret_cast<const char*>(message_.data()), message_.size());
    sink_.OnAnswer(token, {load::Outcome::kOk, "", bytes});
  } else {
    const auto outcome = static_cast<load::Outcome>(request.status.code());
    sink_.OnAnswer(token, {outcome, request.status.message(), ""});
  }
  engine_->Release(request);
}

void EngineCarrier::Abandon() {
  Flush();
  Deliver();
  while (in_flight_ > 0) {
    pollfd waiting{completions_->fd(), POLLIN, 0};
    poll(&waiting, 1, -1);
    completions_->Take(&taken_);
    Deliver();
  }
}

}  // namespace penstock::loadgen
