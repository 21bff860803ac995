// SharedTensor: where in a client's shared memory a tensor of a request lies, from the parameters
// shared_memory_region, shared_memory_byte_size and shared_memory_offset.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "base/status.h"
#include "memory/shared_memory.h"
#include "protocol/infer_request.h"

namespace penstock {

// Ownership: holds its region, which may have been unregistered meanwhile.
struct SharedTensor {
  std::shared_ptr<const SharedRegion> region;  // null: the tensor travels in the message
  uint64_t offset = 0;                         // in the region
  uint64_t size_bytes = 0;                     // within the region, as it was registered
  bool is_on_device =
      false;  // its batch's backend copies it on the GPU itself, not through the host
};

// Whether a tensor's parameters have anything to do with shared memory.
bool NamesSharedMemory(std::span<const Parameter> parameters);

// Reads a tensor's `parameters`. `who` says whose they are, in messages: "tensor 'I' for model 'm'".
// REQUIRES: NamesSharedMemory(parameters).
// Status: NOT_FOUND "Unable to find shared memory region: 'r'"; UNIMPLEMENTED where the operator
// has not allowed shared memory; INVALID_ARGUMENT for parameters that lack one of the others, are
// of the wrong type, or reach out of the region.
Result<SharedTensor> FindSharedTensor(const SharedMemory& memory,
                                      std::span<const Parameter> parameters, std::string_view who);

}  // namespace penstock
