#include "engine/request_batch.h"

#include "engine/bind_request.h"
#include "engine/infer_request.h"
#include "engine/response_channel.h"

namespace penstock {

void RequestBatch::Open(const Batch& batch, std::span<const Status> outcomes,
                        const VersionSpec& spec) {
  struct Ends {
    size_t parameters;
    size_t wanted;
  };
  std::vector<Ends> ends;
  parameters_.clear();
  wanted_.clear();
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    if (!outcomes[i].ok()) continue;
    const InferRequest& request = AsInfer(batch.requests[i]);
    for (const Parameter& parameter : request.view.ParametersOf(request.view.request_parameters)) {
      if (!IsReservedParameter(parameter.key)) parameters_.push_back(parameter);
    }
    for (const WantedOutput& wanted : request.wanted) {
      wanted_.push_back(spec.outputs[wanted.index].backend_index);
    }
    ends.push_back({parameters_.size(), wanted_.size()});
  }
  Ends begin{0, 0};
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    if (!outcomes[i].ok()) continue;
    const InferRequest& request = AsInfer(batch.requests[i]);
    const Ends end = ends[requests_.size()];
    requests_.push_back(
        {.rows = request.rows,
         .id = request.view.id,
         .parameters =
             std::span(parameters_).subspan(begin.parameters, end.parameters - begin.parameters),
         .wanted = std::span(wanted_).subspan(begin.wanted, end.wanted - begin.wanted),
         .timeout_us = request.timeout_us,
         .responses = ResponseChannel::Open(request.channel, batch.requests[i])});
    begin = end;
  }
}

void RequestBatch::Settle(const Batch& batch, const Status& executed, const BatchTimes& times,
                          std::span<Status> outcomes, KeptRequests* kept) {
  ClearKept(batch);
  for (size_t i = 0; i < batch.requests.size() && !executed.ok(); ++i) {
    if (outcomes[i].ok()) AsInfer(batch.requests[i]).channel->Fail(executed);
  }
  requests_.clear();  // senders that nobody kept end their requests here
  for (size_t i = 0; i < batch.requests.size(); ++i) {
    if (!outcomes[i].ok()) continue;
    const InferRequest& request = AsInfer(batch.requests[i]);
    const bool may_be_kept = !request.channel->is_finished();
    if (may_be_kept) kept->Add(batch.requests[i], this);
    const std::optional<Status> outcome = request.channel->Settle(times);
    was_kept_[i] = !outcome.has_value();
    if (!was_kept_[i]) {
      outcomes[i] = *outcome;
      if (may_be_kept) kept->Remove(request);
    }
  }
}

}  // namespace penstock
