// Workload: what is sent, and what must come back.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "load/outcome.h"

namespace penstock::load {

// One request body. Only `request` is needed.
struct Sample {
  std::string request;                  // a serialised message
  std::optional<std::string> expected;  // the serialised answer, to the byte
};

struct WorkloadOptions {
  std::string path = "/inference.GRPCInferenceService/ModelInfer";
  // Requests go over long-lived streams, and answers come in their order.
  bool streaming = false;
  // Requests are ModelInferRequests: each gets an id of its own, which its answer must bring back.
  bool unique_ids = false;
  // Instead of `expected`: answers must be the requests themselves (an echo).
  bool expect_request = false;
  // Judges what was not expected to the byte. Returns what is wrong with the answer, "" if nothing.
  std::function<std::string(size_t sample, std::string_view answer)> check = nullptr;
};

// Threading: immutable after construction, but for what `check` does.
class Workload {
 public:
  // Refuses an empty list and, with unique_ids, samples that are no protobuf messages.
  static Result<Workload> Create(std::vector<Sample> samples, WorkloadOptions options);

  const WorkloadOptions& options() const { return options_; }
  size_t size() const { return samples_.size(); }
  std::string_view request(size_t sample) const { return samples_[sample].request; }

  // Whether an OK answer is right; fills in outcome and text where it is not. `id` is the one that
  // the request was given, "" for none: then its own counts, if the path is one of inference.
  Answer Judge(size_t sample, std::string_view id, std::string_view message,
               std::string* text) const;

 private:
  struct Known {
    std::string request;
    std::string id;                       // of the request, as it was given
    std::optional<std::string> expected;  // with unique_ids: without the id
  };

  explicit Workload(WorkloadOptions options) : options_(std::move(options)) {}
  Status Add(Sample sample);
  std::string Fault(size_t sample, std::string_view id, std::string_view message) const;

  WorkloadOptions options_;
  bool is_inference_ = false;
  std::vector<Known> samples_;
};

}  // namespace penstock::load
