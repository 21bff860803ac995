#include "engine/shared_tensor.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/strcat.h"
#include "base/utf8.h"

namespace penstock {
namespace {

constexpr std::string_view kRegion = "shared_memory_region";
constexpr std::string_view kOffset = "shared_memory_offset";
constexpr std::string_view kByteSize = "shared_memory_byte_size";

// A key may come twice: the last one counts.
const Parameter* FindLast(std::span<const Parameter> parameters, std::string_view key) {
  const Parameter* found = nullptr;
  for (const Parameter& parameter : parameters) {
    if (parameter.key == key) found = &parameter;
  }
  return found;
}

// A number of bytes, which protobuf has as a signed one; negative ones are not let through.
Result<uint64_t> ReadBytes(const Parameter& parameter, std::string_view who) {
  const auto* value = std::get_if<int64_t>(&parameter.value);
  if (value == nullptr) {
    return InvalidArgument(StrCat("invalid value type for '", parameter.key, "' parameter for ",
                                  who, ", expected int64_param."));
  }
  if (*value < 0) {
    return InvalidArgument(StrCat("invalid value for '", parameter.key, "' parameter for ", who,
                                  ": expected >= 0, got ", *value));
  }
  return static_cast<uint64_t>(*value);
}

Status CheckBounds(const SharedTensor& tensor, std::string_view name, std::string_view who) {
  const uint64_t region_bytes = tensor.region->info().size_bytes;
  if (tensor.offset >= region_bytes) {
    return InvalidArgument(StrCat("Invalid offset for shared memory region: ", Quoted(name), " of ",
                                  region_bytes, " bytes, for ", who, ": got ", tensor.offset));
  }
  if (tensor.region->Contains(tensor.offset, tensor.size_bytes)) return Status::Ok();
  return InvalidArgument(
      StrCat("Invalid offset + byte size for shared memory region: ", Quoted(name), " of ",
             region_bytes, " bytes, for ", who, ": got ", tensor.offset, " + ", tensor.size_bytes));
}

}  // namespace

bool NamesSharedMemory(std::span<const Parameter> parameters) {
  return std::any_of(parameters.begin(), parameters.end(), [](const Parameter& parameter) {
    return parameter.key == kRegion || parameter.key == kOffset || parameter.key == kByteSize;
  });
}

Result<SharedTensor> FindSharedTensor(const SharedMemory& memory,
                                      std::span<const Parameter> parameters, std::string_view who) {
  PENSTOCK_RETURN_IF_ERROR(memory.CheckAllowed());
  const Parameter* const region = FindLast(parameters, kRegion);
  const Parameter* const offset = FindLast(parameters, kOffset);
  const Parameter* const byte_size = FindLast(parameters, kByteSize);
  if (region == nullptr) {
    return InvalidArgument(StrCat("'", (offset != nullptr ? offset : byte_size)->key,
                                  "' can not be specified without 'shared_memory_region' "
                                  "parameter for ",
                                  who));
  }
  const auto* name = std::get_if<std::string_view>(&region->value);
  if (name == nullptr) {
    return InvalidArgument(StrCat("invalid value type for 'shared_memory_region' parameter for ",
                                  who, ", expected string_param."));
  }
  if (byte_size == nullptr) {
    return InvalidArgument(
        StrCat("'shared_memory_byte_size' must be specified along with "
               "'shared_memory_region' parameter for ",
               who));
  }
  SharedTensor tensor;
  PENSTOCK_ASSIGN_OR_RETURN(tensor.region, memory.Find(*name));
  if (tensor.region == nullptr) {
    return NotFound(StrCat("Unable to find shared memory region: ", Quoted(*name), ", for ", who));
  }
  if (offset != nullptr) {
    PENSTOCK_ASSIGN_OR_RETURN(tensor.offset, ReadBytes(*offset, who));
  }
  PENSTOCK_ASSIGN_OR_RETURN(tensor.size_bytes, ReadBytes(*byte_size, who));
  PENSTOCK_RETURN_IF_ERROR(CheckBounds(tensor, *name, who));
  return tensor;
}

}  // namespace penstock
