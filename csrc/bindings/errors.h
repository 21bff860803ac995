// The border between Status and Python exceptions: the only translator.

#pragma once

#include <pybind11/pybind11.h>

#include <utility>

#include "base/status.h"

namespace penstock::bindings {

// A Status on its way to Python: RegisterErrors' translator raises penstock.errors.core_error(code,
// message). Thrown only inside bindings, where pybind11 catches it.
class StatusException {
 public:
  explicit StatusException(Status status) : status_(std::move(status)) {}
  const Status& status() const { return status_; }

 private:
  Status status_;
};

void RegisterErrors(pybind11::module_& module);

inline void ThrowIfError(const Status& status) {
  if (!status.ok()) throw StatusException(status);
}

template <typename T>
T ValueOrThrow(Result<T> result) {
  ThrowIfError(result.status());
  return *std::move(result);
}

}  // namespace penstock::bindings
