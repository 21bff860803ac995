#include "backends/python/python_model.h"

#include <unistd.h>

#include <cctype>
#include <utility>

#include "backends/python/python_instance.h"
#include "backends/worker_tensors.h"
#include "base/strcat.h"

namespace penstock::python {
namespace {

void PutJsonString(std::string_view text, std::string* out) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out->push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (byte < 0x20) {
      out->append("\\u00");
      out->push_back(kHex[byte >> 4]);
      out->push_back(kHex[byte & 15]);
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

// What server/penstock/worker/source.py reads.
std::string StartDocument(const LoadOptions& options, const ModelSettings& settings) {
  std::string text = StrCat("{\"version\":", options.version,
                            ",\"memory_limit_bytes\":", settings.memory_limit_mb << 20);
  for (const auto& [name, value] :
       {std::pair<const char*, std::string_view>{"model_name", options.model_name},
        {"path", options.path},
        {"model_directory", options.model_directory},
        {"config", options.config_json}}) {
    text += StrCat(",\"", name, "\":");
    PutJsonString(value, &text);
  }
  return text + "}";
}

bool IsOfPath(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
         static_cast<unsigned char>(c) >= 0x80 ||
         std::string_view("/._-+~@%#=$").find(c) != std::string_view::npos;
}

// The text without the places of this machine: of the model's files what lies in its directory is
// left, of other absolute paths the last part.
Status WithoutPaths(const Status& status, const std::string& directory) {
  std::string text(status.message());
  const std::string prefix = directory + "/";
  for (size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at)) {
    text.erase(at, prefix.size());
  }
  std::string kept;
  for (size_t at = 0; at < text.size();) {
    // Behind a colon it is the rest of a URL, or another entry of a search path.
    const bool begins =
        text[at] == '/' && (at == 0 || text[at - 1] == '=' || !IsOfPath(text[at - 1]));
    if (!begins || text.compare(at, 2, "//") == 0) {
      kept.push_back(text[at++]);
      continue;
    }
    size_t end = at;
    while (end < text.size() && IsOfPath(text[end])) ++end;
    size_t last = text.rfind('/', end - 1);
    if (last + 1 == end && last > at) last = text.rfind('/', last - 1);
    kept.append(text, last + (last + 1 < end), end - last - (last + 1 < end));
    at = end;
  }
  return {status.code(), std::move(kept)};
}

}  // namespace

void WorkerRoster::Add(const std::shared_ptr<LinkedWorker>& worker) {
  MutexLock lock(mu_);
  std::erase_if(workers_, [](const auto& each) { return each.expired(); });
  workers_.push_back(worker);
}

std::shared_ptr<LinkedWorker> WorkerRoster::FindReady() const {
  MutexLock lock(mu_);
  for (const auto& each : workers_) {
    auto worker = each.lock();
    if (worker != nullptr && worker->worker().is_ready()) return worker;
  }
  return nullptr;
}

Result<std::unique_ptr<BackendModel>> PythonModel::Load(const BackendSettings& backend,
                                                        const LoadOptions& options) {
  const std::string label = StrCat("model '", options.model_name, "' version ", options.version);
  const Result<ModelSettings> settings = ReadModelSettings(options.parameters);
  if (!settings.ok()) {
    return Status(settings.status().code(), StrCat(label, ": ", settings.status().message()));
  }
  if (access(options.path.c_str(), R_OK) != 0) {
    return NotFound(label + " cannot be loaded: its file cannot be read");
  }
  WorkerOptions worker;
  worker.label = label;
  worker.log_name = StrCat(options.model_name, "_", options.version);
  worker.model = options.model_name;
  worker.version = std::to_string(options.version);
  worker.launch.start_document = StartDocument(options, *settings);
  worker.launch.arguments = {backend.interpreter, backend.runtime};
  if (!settings->interpreter.empty()) {  // an environment of its own, and nothing else: -I
    worker.launch.arguments = {settings->interpreter, "-I", backend.runtime};
  }
  worker.load_limit_ns = Nanoseconds(settings->limits.load_limit_s);
  worker.execution_limit_ns = Nanoseconds(settings->limits.execution_limit_s);
  worker.restarts.max_restarts = settings->max_restarts;
  worker.restarts.window_ns = Nanoseconds(settings->restart_window_s);
  std::unique_ptr<PythonModel> model(new PythonModel(std::move(worker), options.model_directory));
  auto first = Worker::Start(model->worker_options_);
  if (!first.ok()) return WithoutPaths(first.status(), options.model_directory);
  const WorkerSignature& signature = (*first)->signature();
  model->signature_ = ToModelSignature(signature);
  model->described_ = signature;
  model->Keep(*std::move(first));
  return std::unique_ptr<BackendModel>(std::move(model));
}

void PythonModel::Keep(std::unique_ptr<Worker> worker) {
  MutexLock lock(mu_);
  spare_ = std::move(worker);
}

Result<std::unique_ptr<BackendInstance>> PythonModel::CreateInstance(
    const InstanceOptions& options) {
  auto worker = TakeWorker(options.name);
  if (!worker.ok()) return WithoutPaths(worker.status(), directory_);
  roster_->Add(*worker);
  return std::unique_ptr<BackendInstance>(
      std::make_unique<PythonInstance>(label(), signature_, *std::move(worker), roster_));
}

Result<std::shared_ptr<LinkedWorker>> PythonModel::TakeWorker(const std::string& name) {
  std::unique_ptr<Worker> worker;
  {
    MutexLock lock(mu_);
    worker = std::move(spare_);
  }
  // The spare one may have ended while it waited.
  if (worker == nullptr || worker->has_failed()) {
    PENSTOCK_ASSIGN_OR_RETURN(worker, Worker::Start(worker_options_));
    if (!(worker->signature() == described_)) {
      return FailedPrecondition(label() + ": the model's file has changed: load it again");
    }
  }
  PENSTOCK_RETURN_IF_ERROR(worker->Activate(name));
  return std::make_shared<LinkedWorker>(std::move(worker));
}

}  // namespace penstock::python
