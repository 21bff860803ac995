#include "bindings/bind_engine.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#include "base/log.h"
#include "base/strcat.h"
#include "bindings/bind_call.h"
#include "bindings/errors.h"
#include "bindings/gil.h"
#include "bindings/py_access.h"
#include "bindings/seconds.h"
#include "engine/response_channel.h"

namespace py = pybind11;

namespace penstock::bindings {
namespace {

// The engine with the one completion queue of the asyncio lane.
// Threading: Infer and TakeCompletions on the event loop's thread, the rest under the GIL on any.
class PyEngine {
 public:
  // NOLINTNEXTLINE(readability-function-size): one parameter per keyword argument
  PyEngine(std::vector<std::string> backend_directories, size_t max_inflight_requests,
           size_t max_request_bytes, size_t max_background_bytes, size_t max_response_bytes,
           bool allow_client_shm, size_t max_waiting_requests, const AccessPolicy* access)
      : max_response_bytes_(max_response_bytes),
        engine_(std::make_shared<Engine>(Engine::Options{
            .backend_directories = std::move(backend_directories),
            .limits = {max_inflight_requests, max_request_bytes, max_background_bytes},
            .access = access == nullptr ? AccessPolicy() : *access,
            .allow_client_shm = allow_client_shm,
            .max_waiting_requests = max_waiting_requests})) {}

  ~PyEngine() {
    // Whatever was never taken still borrows Python objects, and instances may still push here.
    const bool all_ended = WithoutGil([&] { return engine_->Shutdown(kLastShutdownNs); });
    try {
      TakeCompletions();
    } catch (const py::error_already_set&) {  // no memory for a list that nobody would have read
    }
    told_.clear();
    taken_.clear();
    unflushed_.clear();  // a version leaves the engine's timer as it goes
    if (!all_ended) {
      // A model that never ends may still finish a batch: what it then touches is left alone.
      Log(LogLevel::kError, "engine", "left behind with an instance that does not end");
      new std::shared_ptr<Engine>(engine_);                // NOLINT: leaked on purpose
      new std::shared_ptr<CompletionQueue>(completions_);  // NOLINT: likewise
    }
    ResetWithoutGil(engine_);
  }

  const std::shared_ptr<Engine>& engine() const { return engine_; }
  const std::shared_ptr<CompletionQueue>& completions() const { return completions_; }

  // NOLINTNEXTLINE(readability-function-size): one parameter per keyword argument
  PyCall Infer(py::bytes message, int64_t deadline_ns, py::object tag, bool stream,
               const Caller* caller, bool background) {
    RequestRef ref = InferRequestPool::Shared().Get();
    InferRequest& request = AsInfer(ref);
    const std::string_view bytes = message;
    request.message = {reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()};
    request.completions = completions_.get();
    request.is_stream = stream;
    request.deadline_ns = deadline_ns > 0 ? deadline_ns : kNever;
    request.max_response_bytes = max_response_bytes_;
    request.tag = std::make_unique<Tag>(Tag{std::move(tag), std::move(message)}).release();
    engine_->Infer(ref, {caller, Wake::kLater, background});
    AddUnflushed(request);
    return {completions_, engine_, std::move(ref)};
  }

  // Runs what is quick here, wakes instances for the rest, and takes what is done.
  py::list Flush() {
    const CompletionQueue::Turn turn(*completions_);
    for (const auto& version : unflushed_) {
      if (!version->TryRunHere()) version->Flush();
    }
    unflushed_.clear();
    return TakeCompletions();
  }

  // What there is no memory to tell of is told the next time, for which the descriptor is readable.
  py::list TakeCompletions() {
    if (TellTaken()) {
      completions_->Take(&taken_);
      TellTaken();
    }
    PyObject* const list = PyList_New(static_cast<Py_ssize_t>(told_.size()));
    if (list == nullptr) {
      completions_->SignalAgain();
      throw py::error_already_set();
    }
    for (size_t i = 0; i < told_.size(); ++i) {
      PyList_SET_ITEM(list, static_cast<Py_ssize_t>(i), told_[i].release().ptr());
    }
    told_.clear();
    return py::reinterpret_steal<py::list>(list);
  }

  int fd() const { return completions_->fd(); }

 private:
  // What a completion of responses has in its code's place, and one that says that the request's
  // wait for its model has ended.
  static constexpr int kPartsCode = -1;
  static constexpr int kRetriedCode = -2;

  // A refused request may have no version; one that is being replaced is flushed for nothing.
  void AddUnflushed(const InferRequest& request) {
    const auto& version = request.version;
    if (version != nullptr && (unflushed_.empty() || unflushed_.back() != version)) {
      unflushed_.push_back(version);
    }
  }

  // Makes what was taken into completions in told_. False: there was no memory for all of it.
  bool TellTaken() {
    for (; next_ < taken_.size(); ++next_) {
      if (!TryTell(taken_[next_])) {
        completions_->SignalAgain();
        return false;
      }
    }
    taken_.clear();
    next_ = 0;
    return true;
  }

  bool TryTell(const RequestRef& ref) {
    try {
      return AsInfer(ref).retries ? TellRetried(ref) : Tell(AsInfer(ref));
    } catch (const std::bad_alloc&) {  // for a text; what the request gave has been told, or failed
      return false;
    }
  }

  // False: there was no memory, and nothing has happened. A request gives what it has only once, so
  // whatever that goes into is there before.
  bool Tell(InferRequest& request) {
    if (!MakeRoomToTell()) return false;
    py::object outcome = NewCompletion();
    py::object parts = request.is_decoupled ? NewCompletion() : py::none();
    const py::object list = request.is_decoupled ? NewList() : py::none();
    if (!outcome || !parts || !list) {
      PyErr_Clear();
      return false;
    }
    blocks_.clear();
    const bool is_done = request.Take(&blocks_);
    if (!blocks_.empty() && TagOf(request).failure.ok()) {
      AddParts(request, list);
      Fill(parts, TagOf(request).tag, kPartsCode, list, py::none());
      told_.push_back(std::move(parts));
    }
    blocks_.clear();
    if (is_done) {
      FillOutcome(request, outcome);
      told_.push_back(std::move(outcome));
    }
    return true;
  }

  // The submitter's thread is this one.
  bool TellRetried(const RequestRef& ref) {
    if (!MakeRoomToTell()) return false;
    py::object completion = NewCompletion();
    if (!completion) {
      PyErr_Clear();
      return false;
    }
    InferRequest& request = AsInfer(ref);
    engine_->Retry(ref);
    Fill(completion, TagOf(request).tag, kRetriedCode, py::none(), py::none());
    told_.push_back(std::move(completion));
    AddUnflushed(request);
    return true;
  }

  // For what one request has.
  bool MakeRoomToTell() {
    constexpr size_t kMost = 2;
    if (told_.capacity() - told_.size() >= kMost) return true;
    try {
      told_.reserve(2 * told_.size() + kMost);
      return true;
    } catch (const std::bad_alloc&) {
      return false;
    }
  }

  // Null where there is no memory.
  static py::object NewCompletion() { return py::reinterpret_steal<py::object>(PyTuple_New(4)); }

  static py::object NewList() { return py::reinterpret_steal<py::object>(PyList_New(0)); }

  static void Fill(const py::object& completion, py::object tag, int code, py::object payload,
                   py::object message) {
    PyTuple_SET_ITEM(completion.ptr(), 0, tag.release().ptr());
    PyTuple_SET_ITEM(completion.ptr(), 1, PyLong_FromLong(code));  // small: there already
    PyTuple_SET_ITEM(completion.ptr(), 2, payload.release().ptr());
    PyTuple_SET_ITEM(completion.ptr(), 3, message.release().ptr());
  }

  // The responses in blocks_, each as bytes. Where there is no memory for them the request fails:
  // they are in its channel no more.
  void AddParts(InferRequest& request, const py::object& parts) {
    try {
      for (const ResponseBlock& block : blocks_) {
        for (const std::span<const uint8_t> message : MessagesOf(block)) {
          const auto bytes = py::reinterpret_steal<py::object>(
              PyBytes_FromStringAndSize(reinterpret_cast<const char*>(message.data()),
                                        static_cast<Py_ssize_t>(message.size())));
          if (bytes && PyList_Append(parts.ptr(), bytes.ptr()) == 0) continue;
          PyErr_Clear();
          return DropParts(request, ResourceExhausted(StrCat("no memory for a response of ",
                                                             message.size(), " bytes")));
        }
      }
    } catch (const std::bad_alloc&) {
      DropParts(request, ResourceExhausted("out of memory"));  // so short that it needs none itself
    }
  }

  static void DropParts(InferRequest& request, Status status) {
    TagOf(request).failure = std::move(status);  // its model may have finished long before
    WithoutGil([&] { request.channel->Fail(TagOf(request).failure); });
  }

  static Tag& TagOf(const InferRequest& request) { return *static_cast<Tag*>(request.tag); }

  void FillOutcome(InferRequest& request, const py::object& completion) {
    if (request.status.ok()) request.status = TagOf(request).failure;
    py::object payload = py::none();
    if ((request.status.ok() || request.is_stream) && request.has_final_message()) {
      payload = Encode(&request);
    }
    py::object message = py::none();
    if (!request.status.ok()) message = TextOf(request.status.message());
    // From here on nothing needs memory: it would be told again.
    const std::unique_ptr<Tag> tag(static_cast<Tag*>(std::exchange(request.tag, nullptr)));
    engine_->Release(request);
    Fill(completion, std::move(tag->tag), static_cast<int>(request.status.code()),
         std::move(payload), std::move(message));
  }

  // None where there is no memory: the code still says what happened.
  static py::object TextOf(std::string_view text) {
    PyObject* const decoded =
        PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace");
    if (decoded != nullptr) return py::reinterpret_steal<py::object>(decoded);
    PyErr_Clear();
    return py::none();
  }

  // The response, or on a stream the failure; a response that cannot be made fails its request, not
  // those that are taken with it.
  static py::object Encode(InferRequest* request) {
    if (request->status.ok()) {
      if (py::object bytes = TryEncode(request)) return bytes;
    }
    if (!request->is_stream) return py::none();
    py::object bytes = TryEncode(request);
    if (!bytes) {
      request->view.id = {};  // as long as a client likes; without it a failure fits
      bytes = TryEncode(request);
    }
    return bytes ? bytes : py::none();  // code and message still say what happened
  }

  // The response's only copy: from the batch's output slab into the bytes object. Null when that
  // cannot be; then the request has failed.
  static py::object TryEncode(InferRequest* request) {
    const size_t size = request->EncodedSize();
    if (size > kMaxMessageBytes) {
      request->status = Internal("the response is larger than a protobuf message can be (2 GiB)");
      return {};
    }
    PyObject* bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
    if (bytes == nullptr) {
      PyErr_Clear();
      request->status = ResourceExhausted(StrCat("no memory for a response of ", size, " bytes"));
      return {};
    }
    auto* data = reinterpret_cast<uint8_t*>(PyBytes_AS_STRING(bytes));
    request->EncodeTo({data, size});
    return py::reinterpret_steal<py::object>(bytes);
  }

  static constexpr size_t kMaxMessageBytes = (size_t{1} << 31) - 1;

  static constexpr int64_t kLastShutdownNs = int64_t{60} * 1'000'000'000;

  // Constant after construction.
  const size_t max_response_bytes_;  // of one of several; 0 = no bound

  // Before the engine: instances push to it until they are joined. Shared with calls and versions:
  // a cancel or a drain on another thread may still push.
  std::shared_ptr<CompletionQueue> completions_ = std::make_shared<CompletionQueue>();
  std::shared_ptr<Engine> engine_;
  std::vector<RequestRef> taken_;  // kept for its capacity, as the next two
  size_t next_ = 0;                // of taken_, that is not told yet
  std::vector<py::object> told_;   // completions, not yet handed over
  std::vector<ResponseBlock> blocks_;
  std::vector<std::shared_ptr<ModelVersion>>
      unflushed_;  // versions with requests since the last Flush
};

// NOLINTNEXTLINE(readability-function-size): one parameter per keyword argument
PyLoadedModel LoadModel(const PyEngine& self, const std::string& backend, std::string model_name,
                        int64_t version, std::string path, std::string model_directory,
                        std::map<std::string, std::string> parameters, std::string config_json,
                        std::vector<std::string> devices) {
  const LoadOptions options{std::move(model_name), version,
                            std::move(path),       std::move(model_directory),
                            std::move(parameters), std::move(config_json),
                            std::move(devices)};
  Engine& engine = *self.engine();
  std::string description;
  auto model =
      ValueOrThrow(WithoutGil([&] { return engine.LoadModel(backend, options, &description); }));
  return {self.engine(), std::move(model), std::move(description)};
}

PyVersion CreateVersion(const PyEngine& self, const PyLoadedModel& model, const VersionSpec& spec) {
  return {
      self.completions(), self.engine(),
      ValueOrThrow(WithoutGil([&] { return self.engine()->CreateVersion(model.model, spec); }))};
}

void SetServing(const PyEngine& self, const std::string& model_name,
                const std::vector<const PyVersion*>& versions, const std::vector<int64_t>& unready,
                bool loads_on_demand) {
  std::vector<std::shared_ptr<ModelVersion>> serving;
  for (const PyVersion* version : versions) {
    if (version == nullptr) throw py::type_error("set_serving: a version is None");
    serving.push_back(version->version);
  }
  self.engine()->SetServing(model_name, std::move(serving), unready, loads_on_demand);
}

py::dict EngineStats(const PyEngine& self) {
  const Engine& engine = *self.engine();
  const Admission& admission = self.engine()->admission();
  // I/O threads count on meanwhile. What is completed is read first and what is in flight is made
  // of the others, so that the three agree.
  py::dict completed;
  uint64_t done = 0;
  for (const auto& [code, count] : engine.completed()) {
    completed[py::str(std::string(StatusCodeName(code)))] = count;
    done += count;
  }
  const uint64_t accepted = std::max(admission.admitted(), done);
  py::dict dict;
  dict["accepted"] = accepted;
  dict["inflight"] = accepted - done;
  dict["completed"] = completed;
  py::dict refused;
  for (size_t i = 0; i < kRefusalNames.size(); ++i) {
    refused[py::str(std::string(kRefusalNames[i]))] = admission.refused(static_cast<Refusal>(i));
  }
  dict["refused"] = refused;
  dict["wait_hist_us"] = bindings::ToDict(engine.wait_us());
  return dict;
}

bool WaitIdle(const PyEngine& self, double timeout_s) {
  Engine& engine = *self.engine();
  const int64_t deadline_ns = engine.clock().NowNs() + TimeoutNs(timeout_s);
  return WithoutGil([&] { return engine.admission().WaitIdle(engine.clock(), deadline_ns); });
}

void BindModels(py::class_<PyEngine>& engine) {
  engine
      .def(
          "set_backend_options",
          [](const PyEngine& self, const std::string& backend,
             const std::map<std::string, std::string>& options) {
            WithoutGil([&] { self.engine()->backends().SetOptions(backend, options); });
          },
          py::arg("backend"), py::arg("options"))
      .def("load_model", &LoadModel, py::kw_only(), py::arg("backend"), py::arg("model_name"),
           py::arg("version"), py::arg("path"), py::arg("model_directory"), py::arg("parameters"),
           py::arg("config_json") = "", py::arg("devices") = std::vector<std::string>())
      .def("create_version", &CreateVersion, py::arg("model"), py::arg("spec"))
      .def("set_serving", &SetServing, py::arg("model_name"), py::arg("versions"),
           py::arg("unready") = std::vector<int64_t>(), py::arg("loads_on_demand") = false)
      .def_property_readonly("demand_fd",
                             [](const PyEngine& self) { return self.engine()->demand_fd(); })
      .def("take_demands", [](const PyEngine& self) { return self.engine()->TakeDemands(); })
      .def(
          "end_wait",
          [](const PyEngine& self, const std::string& name, int code, std::string message) {
            self.engine()->EndWait(name, Status(static_cast<StatusCode>(code), std::move(message)));
          },
          py::arg("model_name"), py::arg("code"), py::arg("message"))
      .def(
          "give_up_load",
          [](const PyEngine& self, const std::string& name) { self.engine()->GiveUpLoad(name); },
          py::arg("model_name"))
      .def(
          "set_loadable",
          [](const PyEngine& self, const std::string& name, std::vector<int64_t> versions) {
            self.engine()->SetLoadable(name, std::move(versions));
          },
          py::arg("model_name"), py::arg("versions"))
      .def(
          "waiting",
          [](const PyEngine& self, const std::string& name) {
            return self.engine()->waiting(name);
          },
          py::arg("model_name"))
      .def(
          "forget",
          [](const PyEngine& self, const std::string& name) { self.engine()->Forget(name); },
          py::arg("model_name"));
}

void BindRequests(py::class_<PyEngine>& engine) {
  engine
      .def_property_readonly("access", [](const PyEngine& self) { return PyAccess{self.engine()}; })
      .def("infer", &PyEngine::Infer, py::arg("request"), py::arg("deadline_ns"), py::arg("tag"),
           py::arg("stream"), py::arg("caller") = nullptr, py::arg("background") = false)
      .def("flush", &PyEngine::Flush)
      .def_property_readonly("completion_fd", &PyEngine::fd)
      .def("take_completions", &PyEngine::TakeCompletions);
}

void BindLife(py::class_<PyEngine>& engine) {
  engine
      .def("stop_accepting",
           [](const PyEngine& self) { self.engine()->admission().StopAccepting(); })
      .def("wait_idle", &WaitIdle, py::arg("timeout_s"))
      .def("inflight", [](const PyEngine& self) { return self.engine()->admission().inflight(); })
      .def("stats", &EngineStats)
      .def(
          "shutdown",
          [](const PyEngine& self, double timeout_s) {
            const int64_t timeout_ns = TimeoutNs(timeout_s);
            return WithoutGil([&] { return self.engine()->Shutdown(timeout_ns); });
          },
          py::arg("timeout_s") = 30.0);
}

}  // namespace

void BindEngine(py::module_& module) {
  py::class_<PyCall>(module, "Call")
      .def("cancel",
           [](const PyCall& self) { WithoutGil([&] { self.engine->Cancel(self.request); }); })
      .def_property_readonly("is_decoupled",
                             [](const PyCall& self) { return AsInfer(self.request).is_decoupled; })
      .def_property_readonly(
          "waits", [](const PyCall& self) { return AsInfer(self.request).waits_in != nullptr; })
      .def(
          "taken",
          [](const PyCall& self, size_t count, size_t size_bytes) {
            const auto& channel = AsInfer(self.request).channel;
            if (channel != nullptr) WithoutGil([&] { channel->Taken(count, size_bytes); });
          },
          py::arg("count"), py::arg("size_bytes"))
      .def("retry_after_ms",
           [](const PyCall& self) { return AsInfer(self.request).status.retry_after_ms(); });
  py::class_<PyEngine> engine(module, "Engine");
  engine.def(py::init<std::vector<std::string>, size_t, size_t, size_t, size_t, bool, size_t,
                      const AccessPolicy*>(),
             py::kw_only(), py::arg("backend_directories"), py::arg("max_inflight_requests") = 0,
             py::arg("max_request_bytes") = 0, py::arg("max_background_bytes") = 0,
             py::arg("max_response_bytes") = 0, py::arg("allow_client_shm") = false,
             py::arg("max_waiting_requests") = 256, py::arg("access") = nullptr);
  engine.def_property_readonly("shared_memory",
                               [](const PyEngine& self) { return PySharedMemory{self.engine()}; });
  BindModels(engine);
  BindRequests(engine);
  BindLife(engine);
}

}  // namespace penstock::bindings
