// RowWork: the kernel of tests' models, y = 2x + b + the row's number and n = the row's number. Its body
// is a plain function of a thread's number, as those of gpu/kernels/row_math.h are: a fake GPU's
// stream runs it, and where CUDA's compiler is, a real GPU.

#pragma once

#include <cstddef>
#include <cstdint>

#include "gpu/kernels/row_math.h"

namespace penstock {

// Tensors in a GPU's memory.
struct RowWork {
  size_t rows = 0, width = 0;
  const float* x = nullptr;    // [rows, width]
  const float* b = nullptr;    // [rows]
  float* y = nullptr;          // [rows, width]
  uint32_t* n = nullptr;       // [rows]
  uint8_t* scratch = nullptr;  // written to as well: two at once would be a race
  size_t scratch_bytes = 0;
  bool has_trap = false;  // a row whose first x is `trap_at` ends the kernel by a trap
  float trap_at = 0;
};

// The share of thread `thread` of `threads`. False: it has come to a row to trap at.
PENSTOCK_ANYWHERE bool RunRowWork(const RowWork& work, size_t thread, size_t threads) {
  for (size_t i = thread; i < work.scratch_bytes; i += threads) {
    work.scratch[i] = static_cast<uint8_t>(work.rows);
  }
  for (size_t row = thread; row < work.rows; row += threads) {
    work.n[row] = static_cast<uint32_t>(row);
  }
  for (size_t i = thread; i < work.rows * work.width; i += threads) {
    const size_t row = i / work.width;
    if (work.has_trap && i % work.width == 0 && work.x[i] == work.trap_at) return false;
    work.y[i] = 2 * work.x[i] + work.b[row] + static_cast<float>(row);
  }
  return true;
}

}  // namespace penstock
