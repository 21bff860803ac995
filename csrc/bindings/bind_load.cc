#include <load/client.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bind_engine.h"
#include "bindings/errors.h"
#include "bindings/gil.h"
#include "bindings/seconds.h"

namespace py = pybind11;

namespace penstock::bindings {
namespace {

using load::Client;

// Threading: thread-safe, as the client is.
class PyLoadClient {
 public:
  explicit PyLoadClient(load::FleetOptions options) {
    client_ = ValueOrThrow(WithoutGil([&] { return Client::Start(std::move(options)); }));
  }
  ~PyLoadClient() { ResetWithoutGil(client_); }

  Client& client() const { return *client_; }

 private:
  std::unique_ptr<Client> client_;
};

// NOLINTNEXTLINE(readability-function-size): one parameter per keyword argument
std::unique_ptr<PyLoadClient> MakeClient(
    std::string host, uint16_t port, std::string path, size_t connections, size_t streams,
    int64_t timeout_ms, std::vector<std::pair<std::string, std::string>> metadata) {
  load::FleetOptions options;
  options.target = {std::move(host), port, std::move(path), timeout_ms, std::move(metadata)};
  options.connections = connections;
  options.streams = streams;
  return std::make_unique<PyLoadClient>(std::move(options));
}

void Submit(const PyLoadClient& self, const std::vector<std::pair<uint64_t, py::bytes>>& requests) {
  std::vector<load::ClientRequest> submitted;
  submitted.reserve(requests.size());
  for (const auto& [tag, message] : requests) submitted.push_back({tag, std::string(message)});
  ThrowIfError(WithoutGil([&] { return self.client().Submit(std::move(submitted)); }));
}

py::list Take(const PyLoadClient& self, double timeout_s) {
  const int64_t timeout_ns = TimeoutNs(timeout_s);
  const auto taken = WithoutGil([&] { return self.client().Take(timeout_ns); });
  py::list list(taken.size());
  for (size_t i = 0; i < taken.size(); ++i) {
    list[i] = py::make_tuple(taken[i].tag, static_cast<int>(taken[i].outcome),
                             py::bytes(taken[i].payload), taken[i].latency_ns);
  }
  return list;
}

}  // namespace

void BindLoad(py::module_& module) {
  py::tuple names(load::kOutcomes);
  for (size_t i = 0; i < load::kOutcomes; ++i) {
    names[i] = py::str(std::string(load::OutcomeName(i)));
  }
  module.attr("LOAD_OUTCOMES") = names;
  py::class_<PyLoadClient>(module, "LoadClient")
      .def(py::init(&MakeClient), py::kw_only(), py::arg("host"), py::arg("port"), py::arg("path"),
           py::arg("connections") = 1, py::arg("streams") = 0, py::arg("timeout_ms") = 0,
           py::arg("metadata") = py::tuple())
      .def("submit", &Submit, py::arg("requests"))
      .def("take", &Take, py::arg("timeout_s"))
      .def("in_flight", [](const PyLoadClient& self) { return self.client().in_flight(); })
      .def("close", [](const PyLoadClient& self) { WithoutGil([&] { self.client().Close(); }); });
}

}  // namespace penstock::bindings
