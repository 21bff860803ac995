#include "load/workload.h"

#include <algorithm>

#include "base/strcat.h"
#include "load/message.h"

namespace penstock::load {
namespace {

constexpr std::string_view kInferencePaths = "/inference.GRPCInferenceService/Model";
constexpr uint32_t kErrorField = 1;     // of ModelStreamInferResponse
constexpr uint32_t kResponseField = 2;  // likewise

std::string_view TextOf(std::string_view message, uint32_t number) {
  const auto field = FindField(message, number);
  return field ? field->payload : std::string_view();
}

// Whether two messages are equal but for a field that was cut out of the expected one.
bool EqualsWithout(std::string_view message, const FieldSpan& field, std::string_view expected) {
  return message.size() - (field.end - field.begin) == expected.size() &&
         message.substr(0, field.begin) == expected.substr(0, field.begin) &&
         message.substr(field.end) == expected.substr(field.begin);
}

void EraseIds(std::string* message) {
  while (const auto field = FindField(*message, kIdField)) {
    message->erase(field->begin, field->end - field->begin);
  }
}

std::string Differs(std::string_view message, std::string_view expected) {
  const auto [at, _] =
      std::mismatch(message.begin(), message.end(), expected.begin(), expected.end());
  return StrCat("the answer of ", message.size(), " bytes differs from the expected one of ",
                expected.size(), " bytes at byte ", static_cast<size_t>(at - message.begin()));
}

}  // namespace

Result<Workload> Workload::Create(std::vector<Sample> samples, WorkloadOptions options) {
  Workload workload(std::move(options));
  if (samples.empty()) return InvalidArgument("there is no request to send");
  workload.is_inference_ = workload.options_.path.starts_with(kInferencePaths);
  for (Sample& sample : samples) PENSTOCK_RETURN_IF_ERROR(workload.Add(std::move(sample)));
  return workload;
}

Status Workload::Add(Sample sample) {
  if (sample.request.size() > UINT32_MAX) {
    return InvalidArgument(StrCat("request ", samples_.size(), " is larger than gRPC can frame"));
  }
  Known known{std::move(sample.request), "", std::move(sample.expected)};
  if (options_.unique_ids && !known.request.empty() && !FindField(known.request, 1)) {
    return InvalidArgument(StrCat("request ", samples_.size(),
                                  " is to be given an id, but is not a ModelInferRequest"));
  }
  if (is_inference_) known.id = TextOf(known.request, kIdField);
  if (options_.unique_ids) EraseIds(&known.request);
  if (options_.expect_request) known.expected = known.request;
  if (options_.unique_ids && known.expected) EraseIds(&*known.expected);
  samples_.push_back(std::move(known));
  return Status::Ok();
}

Answer Workload::Judge(size_t sample, std::string_view id, std::string_view message,
                       std::string* text) const {
  std::string_view answer = message;
  if (options_.streaming && is_inference_) {
    answer = TextOf(message, kResponseField);
    if (const auto error = TextOf(message, kErrorField); !error.empty()) {
      *text = error;
      return {Outcome::kRequestFailed, *text, message};
    }
  }
  *text = Fault(sample, id, answer);
  if (!text->empty()) return {Outcome::kWrongAnswer, *text, message};
  return {Outcome::kOk, "", answer};
}

std::string Workload::Fault(size_t sample, std::string_view id, std::string_view message) const {
  const Known& known = samples_[sample];
  if (options_.unique_ids) {
    const auto field = FindField(message, kIdField);
    if (!field || field->payload != id) {
      return StrCat("the answer's id is \"", field ? field->payload : "", "\", expected \"", id,
                    "\"");
    }
    if (known.expected && !EqualsWithout(message, *field, *known.expected)) {
      return Differs(message, *known.expected);
    }
  } else if (known.expected) {
    if (message != *known.expected) return Differs(message, *known.expected);
  } else if (!known.id.empty() && TextOf(message, kIdField) != known.id) {
    return StrCat("the answer's id is \"", TextOf(message, kIdField), "\", expected \"", known.id,
                  "\"");
  }
  return options_.check ? options_.check(sample, message) : "";
}

}  // namespace penstock::load
