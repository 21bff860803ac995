#include <pybind11/stl.h>

#include <string>
#include <string_view>
#include <vector>

#include "bindings/bind_engine.h"
#include "bindings/errors.h"
#include "bindings/gil.h"
#include "bindings/seconds.h"

namespace py = pybind11;

namespace penstock::bindings {

py::dict ToDict(const Histogram& histogram) {
  py::dict dict;
  dict["bounds"] = std::vector<int64_t>(kHistogramBoundsUs.begin(), kHistogramBoundsUs.end());
  dict["counts"] = std::vector<uint64_t>(histogram.counts.begin(), histogram.counts.end());
  dict["sum"] = histogram.sum_us;
  return dict;
}

namespace {

py::dict ToDict(const CountAndTime& value) {
  py::dict dict;
  dict["count"] = value.count;
  dict["ns"] = value.ns;
  return dict;
}

void AddBatches(const VersionStatistics& statistics, const BatcherCounters& counters,
                py::dict& dict) {
  py::dict sizes;
  py::dict by_size;
  for (const auto& [rows, s] : statistics.batches) {
    sizes[py::int_(rows)] = s.count;
    py::dict entry;
    entry["count"] = s.count;
    entry["compute_input_ns"] = s.compute_input_ns;
    entry["compute_infer_ns"] = s.compute_infer_ns;
    entry["compute_output_ns"] = s.compute_output_ns;
    by_size[py::int_(rows)] = entry;
  }
  dict["batch_sizes"] = sizes;
  dict["batch_stats"] = by_size;
  py::dict reasons;
  for (size_t i = 0; i < kCloseReasonCount; ++i) {
    reasons[py::str(std::string(CloseReasonName(static_cast<CloseReason>(i))))] =
        counters.closed[i];
  }
  dict["batch_close"] = reasons;
}

// Requests that failed: in a batch, refused, or while they were queued.
void AddFailures(const VersionStatistics& statistics, const BatcherCounters& counters,
                 py::dict& dict) {
  std::map<StatusCode, uint64_t> failures = statistics.failures;
  failures[StatusCode::kUnavailable] += counters.queue_timeouts + counters.drained;
  failures[StatusCode::kDeadlineExceeded] += counters.expired_queued;
  failures[StatusCode::kCancelled] += counters.cancelled_queued;
  py::dict by_code;
  for (const auto& [code, count] : failures) {
    if (count > 0) by_code[py::str(std::string(StatusCodeName(code)))] = count;
  }
  dict["failures"] = by_code;
  dict["rejected"] = py::dict(py::arg("queue_full") = counters.queue_full);
  dict["timeouts"] = py::dict(py::arg("queue_timeout") = counters.queue_timeouts,
                              py::arg("deadline") = counters.deadlines);
  dict["cancelled"] = py::dict(py::arg("queued") = counters.cancelled_queued,
                               py::arg("running") = counters.cancelled_running);
  dict["drained"] = counters.drained;
  CountAndTime fail = statistics.fail;
  fail.count += counters.queue_timeouts + counters.expired_queued + counters.cancelled_queued +
                counters.drained;
  dict["fail"] = ToDict(fail);
}

// Of background requests, which is counted nowhere else but in busy_ns and batch_close.
py::dict BackgroundDict(const BackgroundStatistics& statistics, const RequestCounters& counters) {
  const uint64_t ended_queued = counters.queue_timeouts + counters.expired_queued +
                                counters.cancelled_queued + counters.drained;
  py::dict dict;
  dict["pending"] = counters.pending;
  dict["oldest_age_ns"] = counters.oldest_age_ns;
  dict["running"] = counters.running;
  dict["accepted"] = counters.accepted;
  dict["success"] = statistics.success;
  dict["fail"] = statistics.fail + ended_queued;
  dict["rows"] = statistics.rows;
  dict["batches"] = statistics.batches;
  dict["busy_ns"] = statistics.busy_ns;
  return dict;
}

py::dict ToDict(const DeviceUse& use) {
  py::list graphs;
  for (const GraphUse& each : use.graphs) {
    graphs.append(py::dict(py::arg("rows") = each.rows, py::arg("runs") = each.runs,
                           py::arg("padded_rows") = each.padded_rows));
  }
  py::dict dict;
  dict["kind"] = use.kind;
  dict["id"] = use.id;
  dict["name"] = use.name;
  dict["uuid"] = use.uuid;
  dict["memory_bytes"] = use.memory_bytes;
  dict["graph_bytes"] = use.graph_bytes;
  dict["graph_budget_bytes"] = use.graph_budget_bytes;
  dict["graphs"] = graphs;
  dict["uncaptured_runs"] = use.uncaptured_runs;
  dict["uncaptured_padded_rows"] = use.uncaptured_padded_rows;
  dict["row_changes"] = use.row_changes;
  dict["busy_ns"] = use.busy_ns;
  return dict;
}

void BindLoadedModel(py::module_& module) {
  py::class_<PyLoadedModel>(module, "LoadedModel")
      .def_property_readonly(
          "inputs",
          [](const PyLoadedModel& self) { return py::cast(self.model->signature().inputs); })
      .def_property_readonly(
          "outputs",
          [](const PyLoadedModel& self) { return py::cast(self.model->signature().outputs); })
      .def_property_readonly(
          "max_batch_size",
          [](const PyLoadedModel& self) { return self.model->signature().max_batch_size; })
      .def_property_readonly(
          "most_rows", [](const PyLoadedModel& self) { return self.model->signature().most_rows; })
      .def_property_readonly(
          "is_decoupled",
          [](const PyLoadedModel& self) { return self.model->signature().is_decoupled; })
      .def_property_readonly(
          "batches_dynamically",
          [](const PyLoadedModel& self) { return self.model->signature().batches_dynamically; })
      .def_property_readonly("runs_on",
                             [](const PyLoadedModel& self) { return self.model->runs_on(); })
      .def_readonly("backend_description", &PyLoadedModel::backend_description);
}

void AddInstance(const PyVersion& self, const std::vector<py::bytes>& warm_ups) {
  const std::vector<std::string_view> messages(warm_ups.begin(), warm_ups.end());
  ThrowIfError(WithoutGil([&] { return self.version->AddInstance(messages); }));
}

bool RemoveInstance(const PyVersion& self, double timeout_s) {
  const int64_t timeout_ns = TimeoutNs(timeout_s);
  return ValueOrThrow(WithoutGil([&] { return self.version->RemoveInstance(timeout_ns); }));
}

}  // namespace

py::dict VersionStatsDict(const ModelVersion& version) {
  const VersionStatistics statistics = version.statistics();
  const BatcherCounters counters = version.counters();
  py::dict dict;
  dict["success"] = ToDict(statistics.success);
  dict["queue"] = ToDict(statistics.queue);
  dict["compute_input"] = ToDict(statistics.compute_input);
  dict["compute_infer"] = ToDict(statistics.compute_infer);
  dict["compute_output"] = ToDict(statistics.compute_output);
  dict["inference_count"] = statistics.inference_count;
  dict["execution_count"] = statistics.execution_count;
  dict["last_inference_ms"] = statistics.last_inference_ms;
  dict["accepted"] = counters.accepted;
  dict["pending"] = counters.pending;
  dict["oldest_age_ns"] = counters.oldest_age_ns;
  dict["running"] = counters.running;
  const InstanceCounts instances = version.instance_counts();
  dict["instances"] = instances.total;
  dict["available_instances"] = instances.available;
  dict["busy_instances"] = instances.busy;
  dict["worker_restarts"] = instances.restarts;
  dict["busy_ns"] = statistics.busy_ns;
  AddBatches(statistics, counters, dict);
  AddFailures(statistics, counters, dict);
  dict["queue_hist_us"] = ToDict(statistics.queue_us);
  dict["compute_input_hist_us"] = ToDict(statistics.input_us);
  dict["compute_infer_hist_us"] = ToDict(statistics.infer_us);
  dict["compute_output_hist_us"] = ToDict(statistics.output_us);
  dict["compute_hist_us"] = ToDict(statistics.compute_us);
  dict["request_hist_us"] = ToDict(statistics.request_us);
  dict["background"] = BackgroundDict(statistics.background, counters.background);
  py::list devices;
  // Models in device workers are asked there.
  const auto uses = WithoutGil([&version] { return version.device_use(); });
  for (const DeviceUse& each : uses) devices.append(ToDict(each));
  dict["devices"] = devices;
  return dict;
}

void BindVersion(py::module_& module) {
  BindLoadedModel(module);
  py::class_<PyVersion>(module, "Version")
      .def_property_readonly("model_name",
                             [](const PyVersion& self) { return self.version->spec().model_name; })
      .def_property_readonly("version",
                             [](const PyVersion& self) { return self.version->spec().version; })
      .def_property_readonly("runs_on",
                             [](const PyVersion& self) { return self.version->runs_on(); })
      .def(
          "warm_up",
          [](const PyVersion& self, const py::bytes& request) {
            const std::string_view bytes = request;
            const std::span data(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
            ThrowIfError(WithoutGil([&] { return self.version->WarmUp(data); }));
          },
          py::arg("request"))
      .def("start",
           [](const PyVersion& self) { WithoutGil([&] { self.engine->Start(self.version); }); })
      .def("add_instance", &AddInstance, py::arg("warm_ups"))
      .def("remove_instance", &RemoveInstance, py::arg("timeout_s"))
      .def(
          "drain",
          [](const PyVersion& self, double timeout_s) {
            const int64_t timeout_ns = TimeoutNs(timeout_s);
            return WithoutGil([&] { return self.engine->Drain(self.version, timeout_ns); });
          },
          py::arg("timeout_s"))
      .def(
          "set_digest",
          [](const PyVersion& self, std::string digest) {
            self.version->SetDigest(std::move(digest));
          },
          py::arg("digest"))
      .def("is_available", [](const PyVersion& self) { return self.version->is_available(); })
      .def("stats", [](const PyVersion& self) { return VersionStatsDict(*self.version); });
}

}  // namespace penstock::bindings
