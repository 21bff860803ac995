// The Python module of the native system under test: bench.mlperf's, built where LoadGen's sources
// are.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bind_engine.h"
#include "native/dispatcher.h"
#include "native/engine_carrier.h"
#include "native/grpc_carrier.h"
#include "native/recorder.h"
#include "native/run.h"

namespace py = pybind11;

namespace penstock::loadgen {
namespace {

constexpr size_t kQuantiles = 200;
constexpr double kGreatestPercent = 99.9;

void ThrowIfError(const Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

// A target with what it sends and what came back.
// Threading: run on one thread, the rest on any; all under the GIL, which run gives away.
class PySut {
 public:
  PySut(std::vector<std::string> messages, bool gives_tensors)
      : messages_(std::move(messages)),
        recorder_({.samples = messages_.size(), .gives_tensors = gives_tensors}) {}
  ~PySut() { Close(); }
  PySut(const PySut&) = delete;
  PySut& operator=(const PySut&) = delete;

  void UseNull() { target_ = std::make_unique<NullTarget>(&recorder_, &messages_); }

  void UseCarrier(Limits limits, const Carrier::Factory& factory) {
    auto made = Dispatcher::Start(&recorder_, limits, factory);
    ThrowIfError(made.status());
    target_ = *std::move(made);
  }

  void Run(RunOptions options) {
    const py::gil_scoped_release release;
    options.samples = messages_.size();
    ThrowIfError(RunLoadGen(options, target_.get(), &recorder_));
  }

  void Close() {
    const py::gil_scoped_release release;
    target_.reset();
  }

  const std::vector<std::string>& messages() const { return messages_; }
  const Recorder& recorder() const { return recorder_; }

  // Where the server is asked for its name; unset for what is in this process.
  std::optional<load::FleetOptions> name_options;

 private:
  const std::vector<std::string> messages_;
  Recorder recorder_;
  std::unique_ptr<Target> target_;
};

std::unique_ptr<PySut> MakeNull(std::vector<std::string> answers, bool gives_tensors) {
  auto made = std::make_unique<PySut>(std::move(answers), gives_tensors);
  made->UseNull();
  return made;
}

// `engine` is a penstock._core.SharedMemory, of all that Python holds the one that gives its engine.
std::unique_ptr<PySut> MakeEngine(const bindings::PySharedMemory& engine,
                                  std::vector<std::string> requests, size_t window, double per_s,
                                  bool gives_tensors) {
  auto made = std::make_unique<PySut>(std::move(requests), gives_tensors);
  made->UseCarrier({window, per_s}, [&](Carrier::Sink* sink, int wake_fd) {
    return Result<std::unique_ptr<Carrier>>(
        std::make_unique<EngineCarrier>(engine.engine, &made->messages(), sink, wake_fd));
  });
  return made;
}

// NOLINTNEXTLINE(readability-function-size): one parameter per keyword argument
std::unique_ptr<PySut> MakeGrpc(std::string host, uint16_t port, const std::string& path,
                                const std::string& name_path, size_t connections,
                                std::vector<std::string> requests, size_t window, double per_s,
                                bool gives_tensors) {
  auto made = std::make_unique<PySut>(std::move(requests), gives_tensors);
  load::FleetOptions options;
  options.target = {.host = std::move(host), .port = port, .path = name_path};
  made->name_options = options;
  options.target.path = path;
  options.connections = connections;
  const py::gil_scoped_release release;
  made->UseCarrier({window, per_s}, [&](Carrier::Sink* sink, int wake_fd) {
    return GrpcCarrier::Connect(options, &made->messages(), sink, wake_fd);
  });
  return made;
}

using Settings = std::map<std::string, std::variant<uint64_t, double>>;

// NOLINTNEXTLINE(readability-function-size): one parameter per keyword argument
void Run(PySut& self, std::string scenario, std::string mode, Settings settings, std::string output,
         std::string library, std::string name, bool is_network) {
  RunOptions options;
  options.scenario = std::move(scenario);
  options.mode = std::move(mode);
  options.settings = std::move(settings);
  options.output = std::move(output);
  options.library = std::move(library);
  options.is_network = is_network;
  options.name = [&self, name = std::move(name)] {
    if (!self.name_options) return name;
    const auto asked = AskServerName(*self.name_options);
    return asked.ok() ? *asked + " " + name : std::string(asked.status().message());
  };
  self.Run(std::move(options));
}

py::dict Progress(const PySut& self) {
  const Recorder& recorder = self.recorder();
  py::dict dict;
  const uint64_t done = recorder.done();  // first: what is under way is never too little
  dict["done"] = done;
  dict["in_flight"] = recorder.issued() - done;
  dict["last_done_ns"] = recorder.last_done_ns();
  dict["is_lost"] = recorder.is_lost();
  return dict;
}

// After a run: count, times of the first and the last answer (ns since the construction), latencies
// at even shares, answers in each bin.
py::dict Tally(const PySut& self) {
  const Recorder& recorder = self.recorder();
  std::vector<std::pair<double, int64_t>> quantiles;
  for (size_t i = 0; i < kQuantiles && recorder.latency().count() > 0; ++i) {
    const double percent = kGreatestPercent * static_cast<double>(i) / (kQuantiles - 1);
    quantiles.emplace_back(percent / 100, recorder.latency().Percentile(percent));
  }
  py::dict dict;
  dict["count"] = recorder.latency().count();
  dict["mean_ns"] = recorder.latency().mean();
  dict["first_ns"] = recorder.first_ns();
  dict["last_ns"] = recorder.last_ns();
  dict["quantiles_ns"] = quantiles;
  dict["bin_ns"] = Recorder::kBinNs;
  dict["bins"] = recorder.bins();
  return dict;
}

// After a run: (sample, message, how often).
py::list Answers(const PySut& self) {
  py::list list;
  const auto& answers = self.recorder().answers();
  for (size_t sample = 0; sample < answers.size(); ++sample) {
    for (const KnownAnswer& each : answers[sample]) {
      list.append(py::make_tuple(sample, py::bytes(each.message), each.count));
    }
  }
  return list;
}

}  // namespace

PYBIND11_MODULE(_penstock_loadgen, module) {
  py::module_::import("penstock._core");  // whose types are used
  py::class_<PySut>(module, "Sut")
      .def_static("null", &MakeNull, py::kw_only(), py::arg("messages"), py::arg("gives_tensors"))
      .def_static("engine", &MakeEngine, py::kw_only(), py::arg("engine"), py::arg("messages"),
                  py::arg("window"), py::arg("per_s"), py::arg("gives_tensors"))
      .def_static("grpc", &MakeGrpc, py::kw_only(), py::arg("host"), py::arg("port"),
                  py::arg("path"), py::arg("name_path"), py::arg("connections"),
                  py::arg("messages"), py::arg("window"), py::arg("per_s"),
                  py::arg("gives_tensors"))
      .def("run", &Run, py::kw_only(), py::arg("scenario"), py::arg("mode"), py::arg("settings"),
           py::arg("output"), py::arg("library"), py::arg("name"), py::arg("is_network"))
      .def("progress", &Progress)
      .def("failures", [](const PySut& self) { return self.recorder().failures(); })
      .def("tally", &Tally)
      .def("answers", &Answers)
      .def("close", &PySut::Close);
}

}  // namespace penstock::loadgen
