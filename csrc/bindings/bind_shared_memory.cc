#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <utility>

#include "bindings/bind_engine.h"
#include "bindings/errors.h"
#include "bindings/gil.h"

namespace py = pybind11;

namespace penstock::bindings {
namespace {

void Register(const PySharedMemory& self, std::string name, std::string key, uint64_t offset,
              uint64_t byte_size) {
  SharedRegionInfo info{std::move(name), std::move(key), offset, byte_size};
  SharedMemory& memory = self.engine->shared_memory();
  ThrowIfError(WithoutGil([&] { return memory.Register(std::move(info)); }));
}

void Unregister(const PySharedMemory& self, const std::string& name) {
  SharedMemory& memory = self.engine->shared_memory();
  ThrowIfError(WithoutGil([&] { return memory.Unregister(name); }));
}

py::list Regions(const PySharedMemory& self, const std::string& name) {
  py::list list;
  for (const SharedRegionInfo& info : ValueOrThrow(self.engine->shared_memory().List(name))) {
    list.append(py::make_tuple(info.name, info.key, info.offset, info.size_bytes));
  }
  return list;
}

}  // namespace

void BindSharedMemory(py::module_& module) {
  py::class_<PySharedMemory>(module, "SharedMemory")
      .def("check_allowed",
           [](const PySharedMemory& self) {
             ThrowIfError(self.engine->shared_memory().CheckAllowed());
           })
      .def("register", &Register, py::kw_only(), py::arg("name"), py::arg("key"), py::arg("offset"),
           py::arg("byte_size"))
      .def("unregister", &Unregister, py::arg("name"))
      .def("regions", &Regions, py::arg("name"));
}

}  // namespace penstock::bindings
