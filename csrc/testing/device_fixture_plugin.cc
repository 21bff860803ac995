// libpenstock_device_fixture.so: a plug-in for device workers of tests. Its models echo INPUT0 as
// OUTPUT0, FP32 [-1,-1], and get into trouble when the first value of a batch says so:
//
//   -1  the process exits with code 7       -5  Execute throws
//   -2  it crashes by SIGSEGV               -6  Execute fails INVALID_ARGUMENT
//   -3  Execute never returns               -7  Execute makes `file`.waiting, and waits for `file`
//   -4  the device is lost                  -8  the process writes nonsense to its sockets
//                                           -9  Execute fails INTERNAL with what the process is
//  -10  OUTPUT0 takes as many bytes as the second value says: nothing, of the system's zero pages
//  -11  the process reads nothing more from its connections, and answers
//  -12  of a plan: no copy on the GPU, and nothing else there, ends from now on
//
// Parameter `load_file`: a file that says how the next load goes: "refuse" (RESOURCE_EXHAUSTED),
// "lost" (UNAVAILABLE), "trap" (the device is lost), "reject" (INVALID_ARGUMENT), "crash", "hang",
// "change" (another signature), "throw", "wait" (until it says something else; makes `load_file`.waiting); anything
// else, or none, is well.
// Parameter `uses`: of how many devices a model tells that it uses them, in 8000 bytes each, with the
// process's number as the memory that it holds, and that so many batches ran there.
// Parameter `instances`: "throw": making one throws; else a file that says, as `load_file`, "wait".
//
// Parameter `kind`, where it is "plan": a plan of FakePlanRuntime's on a fake GPU, of the backend's option
// `width`, whose -4 is a sticky error of the GPU; the value that says so is then the first one that is in
// host memory. Its parameters:
// `asked_file` gets a line for each client's memory that it is asked whether it reaches; `reach_file`
// says how that goes: "no", "hang", "crash", "nonsense" (in place of an answer), "mumble" (on the
// process's own socket, where none was asked), "lose" (the device is lost as a memory is closed);
// anything else, or none, is well.

#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "backends/tensorrt/plan_backend.h"
#include "base/mutex.h"
#include "base/strcat.h"
#include "testing/fake_plan.h"

namespace penstock {
namespace {

std::atomic<bool> g_is_lost{false};
std::atomic<int> g_asked{0};      // how often what is used was asked for
std::atomic<int> g_pin_calls{0};  // memory that the process had pinned, or tried to
std::atomic<int> g_pinned{0};     // what a GPU has registered of it
std::atomic<int> g_outputs{0};    // of plans, with bytes

[[noreturn]] void Crash() {
  signal(SIGSEGV, SIG_DFL);  // a sanitizer would make an exit of it
  raise(SIGSEGV);
  _exit(1);
}

[[noreturn]] void Hang() {
  for (;;) pause();
}

template <typename Condition>
void WaitUntil(const Condition& condition) {
  Mutex mu;
  CondVar never;
  MutexLock lock(mu);
  while (!condition()) never.WaitFor(mu, 2'000'000);
}

void WaitForFile(const std::string& file) {
  std::ofstream(file + ".waiting").flush();
  WaitUntil([&file] { return access(file.c_str(), F_OK) == 0; });
}

std::string FirstWord(const std::string& file) {
  std::string word;
  std::ifstream(file) >> word;
  return word;
}

// Once the file's first word is another.
std::string WordThatIsNotWait(const std::string& file) {
  std::string word = FirstWord(file);
  if (word != "wait") return word;
  std::ofstream(file + ".waiting").flush();
  WaitUntil([&] { return (word = FirstWord(file)) != "wait"; });
  return word;
}

Status Lost() { return Unavailable("GPU 0 is lost: cudaErrorIllegalAddress"); }

int FirstValue(std::span<const BatchInput> inputs) {
  float value = 0;
  for (const BatchInput& input : inputs) {
    if (input.tensor.data.size() < sizeof(value)) continue;
    std::memcpy(&value, input.tensor.data.data(), sizeof(value));
    break;
  }
  return static_cast<int>(value);
}

void CloseConnections() {
  for (int fd = 4; fd < 64; ++fd) shutdown(fd, SHUT_RD);  // but for the process's own
}

void SayNonsense(int first_fd, int end_fd) {
  for (int fd = first_fd; fd < end_fd; ++fd) send(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// Memory that is there once it is read.
Buffer Zeros(size_t size_bytes) {
  void* data =
      mmap(nullptr, size_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  const auto unmap = [](void*, void* mapped, size_t size) noexcept { munmap(mapped, size); };
  return {static_cast<uint8_t*>(data), size_bytes, size_bytes, unmap, nullptr};
}

// `gpu`: of plans. What it wrote to registered memory itself nobody copied.
std::string AboutProcess(const LoadOptions& options, const FakeGpu* gpu) {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing changes it
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  std::string text = StrCat("pid=", getpid(), " visible=", visible == nullptr ? "-" : visible,
                            " pin_calls=", g_pin_calls.load(), " pinned=", g_pinned.load(),
                            " asked=", g_asked.load());
  if (gpu != nullptr) {
    const int in_place = gpu->copies_to_registered();
    text += StrCat(" in_place=", in_place, " elsewhere=", g_outputs - in_place);
  }
  for (const auto& [name, value] : options.parameters) text += StrCat(" ", name, "=", value);
  return text + " ";
}

// Gets into trouble, if a batch that begins so is to.
Status Misbehave(int how, const LoadOptions& options, const FakeGpu* gpu = nullptr) {
  if (how == -1) _exit(7);
  if (how == -2) Crash();
  if (how == -3) Hang();
  if (how == -5) throw std::runtime_error("deliberate exception");
  if (how == -6) return InvalidArgument("deliberate failure");
  if (how == -7) WaitForFile(options.parameters.at("file"));
  if (how == -8) SayNonsense(3, 64);
  if (how == -11) CloseConnections();
  return how == -9 ? Internal(AboutProcess(options, gpu)) : Status::Ok();
}

// Threading: as BackendInstance. Ownership: borrows what is its model's.
class EchoInstance : public BackendInstance {
 public:
  EchoInstance(const LoadOptions& options, std::atomic<uint64_t>& runs)
      : options_(options), runs_(runs) {}

  bool is_available() const override { return !g_is_lost.load(); }

  Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                 std::vector<BatchOutput>* outputs) override {
    ++runs_;
    if (FirstValue(inputs) == -4) g_is_lost = true;
    if (g_is_lost) return Lost();
    PENSTOCK_RETURN_IF_ERROR(Misbehave(FirstValue(inputs), options_));
    const TensorView& input = inputs[0].tensor;
    if (FirstValue(inputs) == -10) {
      float size_bytes = 0;
      std::memcpy(&size_bytes, input.data.data() + sizeof(float), sizeof(size_bytes));
      const auto count = static_cast<int64_t>(size_bytes) / 4;
      outputs->push_back({0, DataType::kFp32, {1, count}, Zeros(static_cast<size_t>(count) * 4)});
      return Status::Ok();
    }
    for (const size_t index : wanted) {
      Buffer data = HostPool::Shared().Allocate(input.data.size());
      if (!input.data.empty()) std::memcpy(data.data(), input.data.data(), input.data.size());
      outputs->push_back({index, DataType::kFp32, input.shape, std::move(data)});
    }
    return Status::Ok();
  }

 private:
  const LoadOptions& options_;
  std::atomic<uint64_t>& runs_;
};

class EchoModel : public BackendModel {
 public:
  EchoModel(LoadOptions options, bool is_changed)
      : options_(std::move(options)),
        signature_{{{"INPUT0", DataType::kFp32, {-1, is_changed ? 5 : -1}}},
                   {{"OUTPUT0", DataType::kFp32, {-1, -1}}}} {}

  const ModelSignature& signature() const override { return signature_; }
  std::vector<DeviceUse> device_use() const override {
    ++g_asked;
    const auto count = options_.parameters.find("uses");
    if (count == options_.parameters.end()) return {};
    DeviceUse use;
    use.name = std::string(8000, 'x');
    use.uncaptured_runs = runs_;
    use.memory_bytes = static_cast<uint64_t>(getpid());
    return {std::stoul(count->second), use};
  }
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions&) override {
    if (g_is_lost) return Lost();
    const auto how = options_.parameters.find("instances");
    if (how != options_.parameters.end()) {
      if (how->second == "throw") throw std::runtime_error("deliberate exception");
      WordThatIsNotWait(how->second);
    }
    return std::unique_ptr<BackendInstance>(std::make_unique<EchoInstance>(options_, runs_));
  }

 private:
  const LoadOptions options_;
  const ModelSignature signature_;
  std::atomic<uint64_t> runs_ = 0;
};

// A plan's, but for the trouble. Ownership: borrows the GPU, and the options, which are its model's.
class PlanInstance : public BackendInstance {
 public:
  PlanInstance(std::unique_ptr<BackendInstance> plan, FakeGpu& gpu, const LoadOptions& options)
      : plan_(std::move(plan)), gpu_(gpu), options_(options) {}

  bool is_available() const override { return plan_->is_available(); }
  bool Reaches(const ExportedMemory& memory) override {
    const auto asked = options_.parameters.find("asked_file");
    if (asked != options_.parameters.end()) {
      std::ofstream(asked->second, std::ios::app) << memory.size_bytes() << "\n";
    }
    const auto file = options_.parameters.find("reach_file");
    const std::string how = file == options_.parameters.end() ? "" : FirstWord(file->second);
    if (how == "no") return false;
    if (how == "hang") Hang();
    if (how == "crash") Crash();
    if (how == "nonsense") SayNonsense(3, 64);
    if (how == "mumble") SayNonsense(3, 4);
    if (how == "lose") gpu_.FailCall("CloseIpcMemory", 1, gpu::Error::kIllegalAddress);
    return plan_->Reaches(memory);
  }
  Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                 std::vector<BatchOutput>* outputs) override {
    return ExecuteParts(inputs, wanted, {}, outputs);
  }
  Status ExecuteParts(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                      const BatchParts& parts, std::vector<BatchOutput>* outputs) override {
    if (FirstValue(inputs) == -4) gpu_.FaultWork(1, gpu::Error::kIllegalAddress);
    if (FirstValue(inputs) == -12) gpu_.HoldStreams();
    PENSTOCK_RETURN_IF_ERROR(Misbehave(FirstValue(inputs), options_, &gpu_));
    Status status = plan_->ExecuteParts(inputs, wanted, parts, outputs);
    for (const BatchOutput& output : *outputs) g_outputs += output.data.size() == 0 ? 0 : 1;
    return status;
  }

 private:
  const std::unique_ptr<BackendInstance> plan_;
  FakeGpu& gpu_;
  const LoadOptions& options_;
};

class PlanModel : public BackendModel {
 public:
  PlanModel(std::unique_ptr<BackendModel> plan, FakeGpu& gpu, LoadOptions options)
      : plan_(std::move(plan)), gpu_(gpu), options_(std::move(options)) {}

  const ModelSignature& signature() const override { return plan_->signature(); }
  std::string runs_on() const override { return plan_->runs_on(); }
  std::vector<DeviceUse> device_use() const override { return plan_->device_use(); }
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions& options) override {
    PENSTOCK_ASSIGN_OR_RETURN(auto instance, plan_->CreateInstance(options));
    return std::unique_ptr<BackendInstance>(
        std::make_unique<PlanInstance>(std::move(instance), gpu_, options_));
  }

 private:
  const std::unique_ptr<BackendModel> plan_;
  FakeGpu& gpu_;
  const LoadOptions options_;
};

class DeviceFixture : public Backend {
 public:
  explicit DeviceFixture(const BackendOptions& options)
      : description_(options.contains("name") ? options.at("name") : "Device fixture 1") {
    auto api = std::make_unique<FakeGpu>();
    gpu_ = api.get();
    FakePlanOptions plan;
    if (options.contains("width")) plan.width = std::stol(options.at("width"));
    auto runtime = std::make_unique<FakePlanRuntime>(*gpu_, plan);
    plans_ = std::make_unique<tensorrt::PlanBackend>(
        tensorrt::PlanBackendParts{std::move(api), std::move(runtime)}, Clock::System(), false);
  }

  std::string_view description() const override { return description_; }

  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options) override {
    std::string how;
    const auto file = options.parameters.find("load_file");
    if (file != options.parameters.end()) how = WordThatIsNotWait(file->second);
    if (how == "refuse") return ResourceExhausted("deliberate refusal");
    if (how == "lost") return Unavailable("deliberate loss");
    if (how == "trap") g_is_lost = true;
    if (g_is_lost) return Lost();
    if (how == "reject") return InvalidArgument("deliberate rejection");
    if (how == "throw") throw std::runtime_error("deliberate exception");
    if (how == "crash") Crash();
    if (how == "hang") Hang();
    const auto kind = options.parameters.find("kind");
    if (kind != options.parameters.end() && kind->second == "plan") {
      PENSTOCK_ASSIGN_OR_RETURN(auto plan, plans_->Load(options));
      return std::unique_ptr<BackendModel>(
          std::make_unique<PlanModel>(std::move(plan), *gpu_, options));
    }
    return std::unique_ptr<BackendModel>(std::make_unique<EchoModel>(options, how == "change"));
  }

  std::shared_ptr<void> PinHostMemory(std::span<uint8_t> memory) override {
    ++g_pin_calls;
    auto registered = plans_->PinHostMemory(memory);
    if (registered == nullptr) return nullptr;
    ++g_pinned;
    return {memory.data(), [registered = std::move(registered)](uint8_t*) { --g_pinned; }};
  }

 private:
  const std::string description_;
  FakeGpu* gpu_ = nullptr;
  std::unique_ptr<tensorrt::PlanBackend> plans_;
};

}  // namespace
}  // namespace penstock

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_backend_v6(const penstock::BackendOptions& options) {
  return std::unique_ptr<penstock::Backend>(std::make_unique<penstock::DeviceFixture>(options));
}
