// The Python module penstock._core: only calls the binders. Its types are in
// server/penstock/_core.pyi.

#include <pybind11/pybind11.h>

#include <string>

#include "base/log.h"
#include "bindings/bind_engine.h"
#include "bindings/errors.h"
#include "protocol/infer_response.h"

namespace py = pybind11;

namespace penstock::bindings {
namespace {

void SetLoggingFromPython(bool debug, bool info, bool warning, bool error, bool json) {
  SetLogging({.debug = debug,
              .info = info,
              .warning = warning,
              .error = error,
              .format = json ? LogFormat::kJson : LogFormat::kText});
}

py::bytes StreamError(const std::string& message, const std::string& request_id,
                      const std::string& model_name, const std::string& version) {
  InferResponseView response;
  response.id = request_id;
  response.model_name = model_name;
  response.model_version = version;
  response.final_response = true;
  std::string bytes(StreamInferErrorSize(message, response), '\0');
  EncodeStreamInferError(message, response,
                         {reinterpret_cast<uint8_t*>(bytes.data()), bytes.size()});
  return py::bytes(bytes);
}

}  // namespace
}  // namespace penstock::bindings

PYBIND11_MODULE(_core, module) {
  using namespace penstock::bindings;  // NOLINT: the module's own body
  module.attr("ABI_VERSION") = 1;
  RegisterErrors(module);
  BindSpecs(module);
  BindVersion(module);
  BindSharedMemory(module);
  BindAccess(module);
  BindEngine(module);
#ifdef PENSTOCK_HAS_TRANSPORT
  BindTransport(module);
  module.attr("HAS_TRANSPORT") = true;
#else
  module.attr("HAS_TRANSPORT") = false;
#endif
#ifdef PENSTOCK_HAS_LOAD_CLIENT
  BindLoad(module);
#endif
  module.def("set_logging", &SetLoggingFromPython, py::kw_only(), py::arg("debug"), py::arg("info"),
             py::arg("warning"), py::arg("error"), py::arg("json"));
  module.def("encode_stream_error", &StreamError, py::arg("message"), py::arg("request_id"),
             py::arg("model_name"), py::arg("version"));
}
