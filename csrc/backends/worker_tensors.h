// What a worker says of its model and gives for a batch, as a backend says and gives it.

#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "backends/backend.h"
#include "base/status.h"
#include "worker/batch_channel.h"
#include "worker/messages.h"

namespace penstock {

ModelSignature ToModelSignature(const WorkerSignature& signature);
WorkerSignature ToWorkerSignature(const ModelSignature& signature);

// The outputs of an answer, in the order that they are wanted in, which is the one that a worker
// gives them in. Else INTERNAL, naming the output; a failed answer is its failure.
Status TakeOutputs(std::string_view label, const ModelSignature& signature,
                   std::span<const size_t> wanted, WorkerAnswer answer,
                   std::vector<BatchOutput>* outputs);

}  // namespace penstock
