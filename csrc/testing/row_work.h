// RowWork: the kernel of fake models, y = 2x + b + the row's number and n = the row's number.

#pragma once

#include <cstddef>
#include <cstdint>

#include "testing/fake_stream.h"

namespace penstock {

// Tensors in the fake GPU's memory.
struct RowWork {
  size_t rows = 0, width = 0;
  const float* x = nullptr;    // [rows, width]
  const float* b = nullptr;    // [rows]
  float* y = nullptr;          // [rows, width]
  uint32_t* n = nullptr;       // [rows]
  uint8_t* scratch = nullptr;  // written to as well: two at once would be a race
  size_t scratch_bytes = 0;
};

FakeWork MakeRowWork(const RowWork& work);

}  // namespace penstock
