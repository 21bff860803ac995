#include "bindings/errors.h"

#include "base/utf8.h"

namespace py = pybind11;

namespace penstock::bindings {
namespace {

void Raise(const Status& status) {
  const py::object make = py::module_::import("penstock.errors").attr("core_error");
  const py::object error = make(static_cast<int>(status.code()),
                                ReplaceInvalidUtf8(status.message()), status.retry_after_ms());
  PyErr_SetObject(py::type::handle_of(error).ptr(), error.ptr());
}

}  // namespace

void RegisterErrors(py::module_& /*module*/) {
  // NOLINTNEXTLINE(performance-unnecessary-value-param): the signature that pybind11 wants
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const StatusException& error) {
      Raise(error.status());
    }
  });
}

}  // namespace penstock::bindings
