// A batch's outputs in a device's worker: their places in the slab for outputs, and how they are sent.
//
//   slab = output*, body of DONE      each aligned to SlabArena::kAlignment

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "worker/child_channel.h"

namespace penstock {

// InstanceOptions::output_room: the places that SendOutputs has for outputs of these sizes, in a slab
// that has room for all that it sends.
// Blocking: as ChildChannel::Reserve.
std::vector<std::span<uint8_t>> AllocateOutputs(ChildChannel& channel,
                                                std::span<const size_t> sizes);

// Answers the batch; outputs that are not in their places are copied there. False: the server does not
// take it. RESOURCE_EXHAUSTED, or INTERNAL where an output lies in another's place: nothing was sent.
Result<bool> SendOutputs(ChildChannel& channel, uint64_t batch,
                         const std::vector<BatchOutput>& outputs);

}  // namespace penstock
