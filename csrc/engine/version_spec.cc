#include "engine/version_spec.h"

#include <algorithm>

#include "base/strcat.h"

namespace penstock {
namespace {

bool HasVariableDim(const Shape& shape) {
  return std::any_of(shape.begin(), shape.end(), [](int64_t dim) { return dim < 0; });
}

// The position of `spec` in the file's tensors, or why it cannot be served from there.
template <typename Spec>
Result<size_t> FindInFile(const std::vector<TensorSpec>& tensors, const Spec& spec,
                          std::string_view kind, const std::string& model) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (tensors[i].name != spec.name) continue;
    if (tensors[i].dtype != spec.dtype) {
      return FailedPrecondition(StrCat(model, ": ", kind, " '", spec.name, "' is ",
                                       DataTypeName(tensors[i].dtype), " in the model file, but ",
                                       DataTypeName(spec.dtype), " in the configuration"));
    }
    return i;
  }
  return FailedPrecondition(
      StrCat(model, ": ", kind, " '", spec.name, "' is not in the model file"));
}

// Room for the batch dimension, which is put before the dims.
template <typename Spec>
Status CheckRank(const VersionSpec& version, const Spec& spec, std::string_view kind) {
  const size_t rank = std::max(spec.dims.rank(), spec.reshape.value_or(Shape()).rank());
  if (!version.has_batch_dimension() || rank < kMaxRank) return Status::Ok();
  return InvalidArgument(StrCat(version.DisplayName(), ": ", kind, " '", spec.name,
                                "' has more than ", kMaxRank,
                                " dimensions with the batch dimension"));
}

// Under preserve_ordering nothing may overtake: it would wait for what it overtook, and keep its
// place among the requests in flight meanwhile.
Status CheckOrdering(const VersionSpec& spec) {
  if (!spec.preserves_ordering) return Status::Ok();
  if (spec.is_decoupled) {
    return InvalidArgument(StrCat(spec.DisplayName(), ": preserve_ordering is not allowed with ",
                                  "model_transaction_policy.decoupled"));
  }
  if (spec.queue_policies.size() > 1) {
    return InvalidArgument(
        StrCat(spec.DisplayName(), ": only one priority level is allowed with preserve_ordering"));
  }
  const QueuePolicy& policy = spec.queue_policies[0];
  const bool may_time_out = policy.default_timeout_us != 0 || policy.honours_request_timeout;
  if (policy.delays_on_timeout && may_time_out) {
    return InvalidArgument(
        StrCat(spec.DisplayName(), ": timeout_action DELAY is not allowed with preserve_ordering"));
  }
  return Status::Ok();
}

Status CheckNumbers(const VersionSpec& spec) {
  const std::string model = spec.DisplayName();
  if (spec.instance_count == 0) return InvalidArgument(model + ": instance count must be >= 1");
  if (spec.outputs.empty()) return InvalidArgument(model + ": at least one output is needed");
  if (spec.queue_policies.empty()) {
    return InvalidArgument(model + ": at least one queue policy is needed");
  }
  if (spec.default_priority < 1 || spec.default_priority > spec.queue_policies.size()) {
    return InvalidArgument(StrCat(model, ": default priority level ", spec.default_priority,
                                  " is not in [1, ", spec.queue_policies.size(), "]"));
  }
  if (spec.max_queue_delay_us < 0) {
    return InvalidArgument(model + ": max queue delay must be >= 0");
  }
  for (const uint32_t rows : spec.preferred_batch_sizes) {
    if (rows < 1 || rows > std::max(spec.max_batch_size, 1U)) {
      return InvalidArgument(StrCat(model, ": preferred batch size ", rows, " is not in [1, ",
                                    spec.max_batch_size, "]"));
    }
  }
  return CheckOrdering(spec);
}

}  // namespace

bool VersionSpec::has_fixed_shapes() const {
  return std::none_of(inputs.begin(), inputs.end(), [](const InputSpec& input) {
    return input.is_optional || HasVariableDim(input.dims);
  });
}

bool VersionSpec::has_fixed_sizes() const {
  return has_fixed_shapes() && std::none_of(inputs.begin(), inputs.end(), [](const auto& input) {
           return input.dtype == DataType::kBytes;
         });
}

std::string VersionSpec::DisplayName() const {
  return StrCat("model '", model_name, "' version ", version);
}

Status BindToSignature(const ModelSignature& signature, VersionSpec* spec) {
  spec->is_decoupled |= signature.is_decoupled;
  PENSTOCK_RETURN_IF_ERROR(CheckNumbers(*spec));
  const std::string model = spec->DisplayName();
  for (InputSpec& input : spec->inputs) {
    PENSTOCK_RETURN_IF_ERROR(CheckRank(*spec, input, "input"));
    PENSTOCK_ASSIGN_OR_RETURN(input.backend_index,
                              FindInFile(signature.inputs, input, "input", model));
  }
  for (OutputSpec& output : spec->outputs) {
    PENSTOCK_RETURN_IF_ERROR(CheckRank(*spec, output, "output"));
    PENSTOCK_ASSIGN_OR_RETURN(output.backend_index,
                              FindInFile(signature.outputs, output, "output", model));
  }
  for (size_t i = 0; i < signature.inputs.size(); ++i) {
    const bool is_fed =
        std::any_of(spec->inputs.begin(), spec->inputs.end(),
                    [i](const InputSpec& input) { return input.backend_index == i; });
    if (!is_fed && !signature.inputs[i].is_optional) {
      return FailedPrecondition(StrCat(model, ": input '", signature.inputs[i].name,
                                       "' of the model file is not in the configuration"));
    }
  }
  std::sort(spec->preferred_batch_sizes.begin(), spec->preferred_batch_sizes.end());
  return Status::Ok();
}

}  // namespace penstock
