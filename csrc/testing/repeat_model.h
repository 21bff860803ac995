// repeat_int32 and square_int32: decoupled models, after Triton's backends of these names.
//
//   repeat_int32  IN INT32[-1], DELAY UINT32[-1], WAIT UINT32[1] -> OUT INT32[1], IDX UINT32[1]:
//                 one response for each element of IN, its value and its index, DELAY[i]
//                 milliseconds after the one before it; the instance is free again after WAIT
//                 milliseconds, whatever is still to be sent
//   square_int32  IN INT32[1] -> OUT INT32[1]: as many responses as IN says, each IN; below 1: none
//
// Neither takes a batch dimension. Both stop while their client has no room.

#pragma once

#include <memory>

#include "backends/backend.h"

namespace penstock {

// Threading: as BackendModel. A thread of the model's own, "ps-repeat", waits for the delays.
std::unique_ptr<BackendModel> MakeRepeatModel();
std::unique_ptr<BackendModel> MakeSquareModel();

}  // namespace penstock
