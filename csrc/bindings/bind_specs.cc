#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <vector>

#include "base/strcat.h"
#include "bindings/bind_engine.h"
#include "bindings/errors.h"
#include "engine/version_spec.h"

namespace py = pybind11;

namespace penstock::bindings {
namespace {

DataType DataTypeFrom(const std::string& name) {
  const DataType dtype = ParseDataType(name);
  if (dtype == DataType::kInvalid) throw py::value_error("unknown datatype '" + name + "'");
  return dtype;
}

Shape ShapeFrom(const std::vector<int64_t>& dims) {
  if (dims.size() > kMaxRank) {
    throw py::value_error(StrCat("rank ", dims.size(), " is over the limit of ", kMaxRank));
  }
  return Shape(dims);
}

std::optional<Shape> OptionalShape(const std::optional<std::vector<int64_t>>& dims) {
  if (!dims.has_value()) return std::nullopt;
  return ShapeFrom(*dims);
}

std::vector<int64_t> DimsOf(const Shape& shape) { return {shape.begin(), shape.end()}; }

void BindTensors(py::module_& module) {
  py::class_<TensorSpec>(module, "TensorSpec")
      .def_readonly("name", &TensorSpec::name)
      .def_property_readonly(
          "datatype", [](const TensorSpec& spec) { return std::string(DataTypeName(spec.dtype)); })
      .def_property_readonly("dims", [](const TensorSpec& spec) { return DimsOf(spec.dims); })
      .def_readonly("optional", &TensorSpec::is_optional);

  py::class_<InputSpec>(module, "InputSpec")
      .def(py::init([](std::string name, const std::string& datatype,
                       const std::vector<int64_t>& dims,
                       const std::optional<std::vector<int64_t>>& reshape, bool optional) {
             return InputSpec{std::move(name), DataTypeFrom(datatype), ShapeFrom(dims),
                              OptionalShape(reshape), optional};
           }),
           py::arg("name"), py::arg("datatype"), py::arg("dims"), py::arg("reshape") = py::none(),
           py::arg("optional") = false);

  py::class_<OutputSpec>(module, "OutputSpec")
      .def(py::init([](std::string name, const std::string& datatype,
                       const std::vector<int64_t>& dims,
                       const std::optional<std::vector<int64_t>>& reshape,
                       std::vector<std::string> labels) {
             return OutputSpec{std::move(name), DataTypeFrom(datatype), ShapeFrom(dims),
                               OptionalShape(reshape), std::move(labels)};
           }),
           py::arg("name"), py::arg("datatype"), py::arg("dims"), py::arg("reshape") = py::none(),
           py::arg("labels") = std::vector<std::string>());
}

void BindPolicy(py::module_& module) {
  py::class_<QueuePolicy>(module, "QueuePolicy")
      .def(py::init([](size_t max_queue_size, int64_t default_timeout_us, bool delay_on_timeout,
                       bool honour_request_timeout) {
             if (default_timeout_us < 0) throw py::value_error("default_timeout_us must be >= 0");
             return QueuePolicy{max_queue_size, default_timeout_us, delay_on_timeout,
                                honour_request_timeout};
           }),
           py::arg("max_queue_size") = 0, py::arg("default_timeout_us") = 0,
           py::arg("delay_on_timeout") = false, py::arg("honour_request_timeout") = true);
}

}  // namespace

void BindSpecs(py::module_& module) {
  BindTensors(module);
  BindPolicy(module);
  py::class_<VersionSpec>(module, "VersionSpec")
      .def(
          py::init([](std::string model_name, int64_t version, std::vector<InputSpec> inputs,
                      std::vector<OutputSpec> outputs, uint32_t max_batch_size,
                      std::vector<uint32_t> preferred_batch_sizes, int64_t max_queue_delay_us,
                      bool preserve_ordering, bool dynamic_batching,
                      uint32_t default_priority_level, std::vector<QueuePolicy> queue_policies,
                      uint32_t instance_count, bool decoupled, uint32_t max_background_batch_size) {
            return VersionSpec{std::move(model_name),
                               version,
                               std::move(inputs),
                               std::move(outputs),
                               max_batch_size,
                               std::move(preferred_batch_sizes),
                               max_queue_delay_us,
                               preserve_ordering,
                               dynamic_batching,
                               default_priority_level,
                               std::move(queue_policies),
                               instance_count,
                               decoupled,
                               max_background_batch_size};
          }),
          py::kw_only(), py::arg("model_name"), py::arg("version"), py::arg("inputs"),
          py::arg("outputs"), py::arg("max_batch_size") = 0,
          py::arg("preferred_batch_sizes") = std::vector<uint32_t>(),
          py::arg("max_queue_delay_us") = 0, py::arg("preserve_ordering") = false,
          py::arg("dynamic_batching") = true, py::arg("default_priority_level") = 1,
          py::arg("queue_policies") = std::vector<QueuePolicy>{QueuePolicy{}},
          py::arg("instance_count") = 1, py::arg("decoupled") = false,
          py::arg("max_background_batch_size") = 0);
}

}  // namespace penstock::bindings
