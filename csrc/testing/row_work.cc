#include "testing/row_work.h"

#include "base/strcat.h"

namespace penstock {

using gpu::Error;

FakeWork MakeRowWork(const RowWork& work) {
  const size_t elements = work.rows * work.width;
  FakeWork made;
  made.reads = {{work.x, elements * sizeof(float)}, {work.b, work.rows * sizeof(float)}};
  made.writes = {{work.y, elements * sizeof(float)}, {work.n, work.rows * sizeof(uint32_t)}};
  if (work.scratch_bytes > 0) made.writes.push_back({work.scratch, work.scratch_bytes});
  made.run = [work] { return RunRowWork(work, 0, 1) ? Error::kSuccess : Error::kLaunchFailure; };
  return made;
}

RowLaunch LaunchOn(FakeGpu& gpu) {
  return [&gpu](gpu::Stream stream, const RowWork& work) {
    const Error error = gpu.Launch(stream, MakeRowWork(work));
    if (error == Error::kSuccess) return Status::Ok();
    return Internal(StrCat("the plan's kernel failed: ", gpu.ErrorName(error)));
  };
}

}  // namespace penstock
