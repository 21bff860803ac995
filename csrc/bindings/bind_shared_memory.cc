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
  SharedRegionInfo info{
      .name = std::move(name), .key = std::move(key), .offset = offset, .size_bytes = byte_size};
  SharedMemory& memory = self.engine->shared_memory();
  ThrowIfError(WithoutGil([&] { return memory.Register(std::move(info)); }));
}

void RegisterCuda(const PySharedMemory& self, std::string name, const py::bytes& handle,
                  int64_t device_id, uint64_t byte_size) {
  SharedRegionInfo info{.name = std::move(name), .device_id = device_id, .size_bytes = byte_size};
  const std::string bytes = handle;
  SharedMemory& memory = self.engine->shared_memory();
  ThrowIfError(WithoutGil([&] { return memory.RegisterCuda(std::move(info), bytes); }));
}

template <RegionKind kKind>
void Unregister(const PySharedMemory& self, const std::string& name) {
  SharedMemory& memory = self.engine->shared_memory();
  ThrowIfError(WithoutGil([&] { return memory.Unregister(kKind, name); }));
}

py::list Regions(const PySharedMemory& self, const std::string& name) {
  py::list list;
  for (const SharedRegionInfo& info :
       ValueOrThrow(self.engine->shared_memory().List(RegionKind::kSystem, name))) {
    list.append(py::make_tuple(info.name, info.key, info.offset, info.size_bytes));
  }
  return list;
}

py::list CudaRegions(const PySharedMemory& self, const std::string& name) {
  py::list list;
  for (const SharedRegionInfo& info :
       ValueOrThrow(self.engine->shared_memory().List(RegionKind::kCuda, name))) {
    list.append(py::make_tuple(info.name, info.device_id, info.size_bytes));
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
      .def("unregister", &Unregister<RegionKind::kSystem>, py::arg("name"))
      .def("regions", &Regions, py::arg("name"))
      .def("check_cuda_usable",
           [](const PySharedMemory& self) {
             const SharedMemory& memory = self.engine->shared_memory();
             ThrowIfError(WithoutGil([&] { return memory.CheckCudaUsable(); }));
           })
      .def("register_cuda", &RegisterCuda, py::kw_only(), py::arg("name"), py::arg("handle"),
           py::arg("device_id"), py::arg("byte_size"))
      .def("unregister_cuda", &Unregister<RegionKind::kCuda>, py::arg("name"))
      .def("cuda_regions", &CudaRegions, py::arg("name"));
}

}  // namespace penstock::bindings
