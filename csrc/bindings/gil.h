// Calls that may block run without the GIL: bind them through WithoutGil.

#pragma once

#include <pybind11/pybind11.h>

namespace penstock::bindings {

// Runs `work` without the GIL and returns its result.
template <typename Work>
auto WithoutGil(Work&& work) {
  const pybind11::gil_scoped_release release;
  return work();
}

// Drops a shared reference without the GIL: the last one may free a model.
template <typename Pointer>
void ResetWithoutGil(Pointer& pointer) {
  const pybind11::gil_scoped_release release;
  pointer.reset();
}

}  // namespace penstock::bindings
