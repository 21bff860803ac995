#include "testing/row_work.h"

#include <algorithm>

namespace penstock {

FakeWork MakeRowWork(const RowWork& work) {
  const size_t elements = work.rows * work.width;
  FakeWork made;
  made.reads = {{work.x, elements * sizeof(float)}, {work.b, work.rows * sizeof(float)}};
  made.writes = {{work.y, elements * sizeof(float)}, {work.n, work.rows * sizeof(uint32_t)}};
  if (work.scratch_bytes > 0) made.writes.push_back({work.scratch, work.scratch_bytes});
  made.run = [work] {
    std::fill_n(work.scratch, work.scratch_bytes, static_cast<uint8_t>(work.rows));
    for (size_t row = 0; row < work.rows; ++row) {
      work.n[row] = static_cast<uint32_t>(row);
      for (size_t i = row * work.width; i < (row + 1) * work.width; ++i) {
        work.y[i] = 2 * work.x[i] + work.b[row] + static_cast<float>(row);
      }
    }
    return gpu::Error::kSuccess;
  };
  return made;
}

}  // namespace penstock
