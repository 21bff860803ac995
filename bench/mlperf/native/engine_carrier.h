// EngineCarrier: samples to an engine in this process, without any transport.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "batcher/completion_queue.h"
#include "engine/engine.h"
#include "native/dispatcher.h"

namespace penstock::loadgen {

// One thread submits, takes and encodes, as an I/O thread of the server does: what is quick runs on
// it.
// Ownership: shares the engine; borrows the requests, until each has its answer.
// Blocking: Abandon, until what is under way has run.
class EngineCarrier final : public Carrier {
 public:
  // `requests` by sample, serialised ModelInferRequests.
  EngineCarrier(std::shared_ptr<Engine> engine, const std::vector<std::string>* requests,
                Carrier::Sink* sink, int wake_fd);

  void Send(size_t token, size_t sample) override;
  void Turn() override;
  void Abandon() override;

 private:
  void Flush();
  void Deliver();
  void DeliverOne(InferRequest& request);

  const std::shared_ptr<Engine> engine_;
  const std::vector<std::string>& requests_;
  Carrier::Sink& sink_;
  const int wake_fd_;
  const std::shared_ptr<CompletionQueue> completions_;
  std::vector<std::shared_ptr<ModelVersion>> unflushed_;
  std::vector<RequestRef> taken_;
  std::vector<uint8_t> message_;
  size_t in_flight_ = 0;
};

}  // namespace penstock::loadgen
