#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "bindings/bind_engine.h"
#include "bindings/errors.h"
#include "bindings/gil.h"
#include "bindings/py_access.h"
#include "bindings/seconds.h"
#include "transport/transport.h"

namespace py = pybind11;

namespace penstock::bindings {
namespace {

constexpr size_t kMaxMessageBytes = UINT32_MAX;  // gRPC's prefix has four bytes for it

// The transport with what it borrows.
// Threading: under the GIL.
class PyTransport {
 public:
  PyTransport(std::shared_ptr<Engine> engine, const TransportOptions& options)
      : engine_(std::move(engine)), transport_(std::make_unique<Transport>(*engine_, options)) {}

  ~PyTransport() {
    WithoutGil([&] { transport_.reset(); });
    ResetWithoutGil(engine_);
  }

  Transport& transport() const { return *transport_; }

 private:
  std::shared_ptr<Engine> engine_;
  std::unique_ptr<Transport> transport_;
};

// NOLINTNEXTLINE(readability-function-size): one parameter per keyword argument
std::unique_ptr<PyTransport> MakeTransport(
    const py::object& engine, int io_threads, size_t max_message_bytes, size_t max_connections,
    uint32_t max_concurrent_streams, size_t max_inflight_per_stream, size_t max_header_bytes,
    bool compression, int response_compression_level, int64_t keepalive_time_ms,
    int64_t keepalive_timeout_ms, int64_t min_ping_interval_ms, int64_t max_connection_age_ms,
    int64_t max_connection_age_grace_ms, int64_t max_connection_idle_ms, size_t max_buffered_bytes,
    bool access_log) {
  TransportOptions options;
  options.io_threads = io_threads;
  options.max_message_bytes = max_message_bytes;
  options.max_connections = max_connections;
  options.max_concurrent_streams = max_concurrent_streams;
  options.max_inflight_per_stream = max_inflight_per_stream;
  options.max_header_bytes = max_header_bytes;
  options.max_buffered_bytes = max_buffered_bytes;
  options.access_log = access_log;
  options.compression = compression;
  options.response_compression_level = response_compression_level;
  options.keepalive_time_ns = keepalive_time_ms * kNsPerMs;
  options.keepalive_timeout_ns = keepalive_timeout_ms * kNsPerMs;
  options.min_ping_interval_ns = min_ping_interval_ms * kNsPerMs;
  options.max_connection_age_ns = max_connection_age_ms * kNsPerMs;
  options.max_connection_age_grace_ns = max_connection_age_grace_ms * kNsPerMs;
  options.max_connection_idle_ns = max_connection_idle_ms * kNsPerMs;
  return std::make_unique<PyTransport>(engine.attr("access").cast<PyAccess>().engine, options);
}

// Text that came from a client, whatever its bytes are: the event that brings it must not fail.
py::object TextFrom(const std::string& bytes) {
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeLatin1(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), nullptr));
}

// A value of metadata: text, or bytes where the name ends in "-bin".
py::object ValueOf(const std::string& name, const std::string& value) {
  if (name.ends_with("-bin")) return py::bytes(value);
  return TextFrom(value);
}

py::tuple MetadataOf(const CallHandle& call) {
  const Metadata& metadata = call.facts().metadata;
  py::tuple pairs(metadata.size());
  for (size_t i = 0; i < metadata.size(); ++i) {
    pairs[i] = py::make_tuple(metadata[i].first, ValueOf(metadata[i].first, metadata[i].second));
  }
  return pairs;
}

Metadata MetadataFrom(const py::object& pairs) {
  Metadata metadata;
  if (pairs.is_none()) return metadata;
  for (const py::handle pair : py::tuple(pairs)) {
    const auto both = py::reinterpret_borrow<py::tuple>(pair);
    if (!py::isinstance<py::tuple>(pair) || both.size() != 2) {
      throw py::type_error("metadata is pairs of key and value");
    }
    metadata.emplace_back(both[0].cast<std::string>(), both[1].cast<std::string>());
  }
  return metadata;
}

Buffer BufferFrom(const py::bytes& bytes) {
  const std::string_view view = bytes;
  if (view.size() > kMaxMessageBytes) throw py::value_error("a message of 4 GiB or more");
  Buffer buffer = HostPool::Shared().Allocate(view.size());
  if (!view.empty()) std::memcpy(buffer.data(), view.data(), view.size());
  return buffer;
}

py::object PayloadOf(const CallEvent& event) {
  if (event.kind == CallEvent::Kind::kClosed) return py::int_(static_cast<int>(event.end));
  if (event.kind != CallEvent::Kind::kMessage) return py::none();
  const auto bytes = event.message.span();
  return py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

py::list TakeEvents(const PyTransport& self) {
  std::vector<CallEvent> events = self.transport().events().Take();
  py::list list(events.size());
  for (size_t i = 0; i < events.size(); ++i) {
    list[i] =
        py::make_tuple(events[i].call, static_cast<int>(events[i].kind), PayloadOf(events[i]));
  }
  return list;
}

py::dict StatsOf(const PyTransport& self) {
  const TransportCounters& counters = self.transport().counters();
  py::dict dict;
  dict["accepted_connections"] = counters.accepted_connections.load();
  dict["refused_connections"] = counters.refused_connections.load();
  dict["open_connections"] = counters.open_connections.load();
  dict["calls"] = counters.calls.load();
  dict["active_calls"] = counters.active_calls.load();
  dict["bytes_read"] = counters.bytes_read.load();
  dict["bytes_written"] = counters.bytes_written.load();
  dict["buffered_bytes"] = counters.buffered_bytes.load();
  dict["access_log_dropped"] = self.transport().dropped_access_lines();
  return dict;
}

py::tuple AuthPropertiesOf(const CallHandle& self) {
  const AuthContext* const context = self.facts().auth_context.get();
  py::tuple properties(context == nullptr ? 0 : context->size());
  for (size_t i = 0; i < properties.size(); ++i) {
    const auto& [key, value] = (*context)[i];
    properties[i] = py::make_tuple(key, py::bytes(value));
  }
  return properties;
}

void BindCall(py::module_& module) {
  py::class_<CallHandle, std::shared_ptr<CallHandle>>(module, "ServerCall")
      .def_property_readonly("path",
                             [](const CallHandle& self) { return TextFrom(self.facts().path); })
      .def_property_readonly("metadata", &MetadataOf)
      .def_property_readonly("peer", [](const CallHandle& self) { return self.facts().peer; })
      .def_property_readonly("connection",
                             [](const CallHandle& self) { return self.facts().connection; })
      .def_property_readonly("auth_properties", &AuthPropertiesOf)
      .def_property_readonly("deadline_ns",
                             [](const CallHandle& self) {
                               const int64_t deadline_ns = self.facts().deadline_ns;
                               return deadline_ns == kNever ? 0 : deadline_ns;
                             })
      .def_property_readonly("caller",
                             [](const CallHandle& self) -> std::optional<Caller> {
                               if (self.caller() == nullptr) return std::nullopt;
                               return *self.caller();
                             })
      .def("read", &CallHandle::Read)
      .def(
          "send_initial_metadata",
          [](CallHandle& self, const py::object& metadata) {
            self.SendMetadata(MetadataFrom(metadata));
          },
          py::arg("metadata"))
      .def(
          "write",
          [](CallHandle& self, const py::bytes& message) { self.Write(BufferFrom(message)); },
          py::arg("message"))
      .def(
          "finish",
          [](CallHandle& self, int code, std::string details, const py::object& metadata) {
            Status status;
            if (code != 0) status = Status(static_cast<StatusCode>(code), std::move(details));
            self.End(std::move(status), MetadataFrom(metadata));
          },
          py::arg("code"), py::arg("details"), py::arg("trailing_metadata"))
      .def(
          "verified",
          [](CallHandle& self, int code, std::string message, int64_t retry_after_ms) {
            Status status;
            if (code != 0) status = Status(static_cast<StatusCode>(code), std::move(message));
            if (code != 0 && retry_after_ms >= 0) status = status.WithRetryAfter(retry_after_ms);
            self.Verified(std::move(status));
          },
          py::arg("code") = 0, py::arg("message") = "", py::arg("retry_after_ms") = -1);
}

}  // namespace

void BindTransport(py::module_& module) {
  BindCall(module);
  py::class_<PyTransport>(module, "Transport")
      .def(py::init(&MakeTransport), py::arg("engine"), py::kw_only(), py::arg("io_threads") = 0,
           py::arg("max_message_bytes"), py::arg("max_connections"),
           py::arg("max_concurrent_streams"), py::arg("max_inflight_per_stream"),
           py::arg("max_header_bytes") = 16384, py::arg("compression") = true,
           py::arg("response_compression_level") = 0, py::arg("keepalive_time_ms"),
           py::arg("keepalive_timeout_ms"), py::arg("min_ping_interval_ms"),
           py::arg("max_connection_age_ms") = 0, py::arg("max_connection_age_grace_ms") = 0,
           py::arg("max_connection_idle_ms") = 0, py::arg("max_buffered_bytes") = 0,
           py::arg("access_log") = false)
      .def(
          "use_tls",
          [](const PyTransport& self, std::string certificate, std::string key,
             std::string client_roots, bool require_client_certificate) {
            ThrowIfError(
                self.transport().UseTls({std::move(certificate), std::move(key),
                                         std::move(client_roots), require_client_certificate}));
          },
          py::kw_only(), py::arg("certificate"), py::arg("key"), py::arg("client_roots") = "",
          py::arg("require_client_certificate") = false)
      .def(
          "listen",
          [](const PyTransport& self, int fd) { ThrowIfError(self.transport().Listen(fd)); },
          py::arg("fd"))
      .def("share_listeners", [](const PyTransport& self) { self.transport().ShareListeners(); })
      .def("start", [](const PyTransport& self) { self.transport().Start(); })
      .def("set_loaded", [](const PyTransport& self) { self.transport().SetLoaded(); })
      .def("close_streams", [](const PyTransport& self) { self.transport().CloseStreams(); })
      .def("drain", [](const PyTransport& self) { self.transport().Drain(); })
      .def(
          "stop",
          [](const PyTransport& self, double timeout_s) {
            const int64_t timeout_ns = TimeoutNs(timeout_s);
            return WithoutGil([&] { return self.transport().Stop(timeout_ns); });
          },
          py::arg("timeout_s") = 30.0)
      .def_property_readonly("event_fd",
                             [](const PyTransport& self) { return self.transport().events().fd(); })
      .def("take_events", &TakeEvents)
      .def("stats", &StatsOf);
}

}  // namespace penstock::bindings
