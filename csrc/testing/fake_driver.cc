// libcuda.so.1 for tests of driver_api.h and for servers that tests start: the driver's functions, on
// two fake GPUs. FAKE_DRIVER in the environment: "none", no device; "error <n>", what cuInit answers.
// FAKE_DRIVER_COPIES: a file that gets a line for each copy, "HtoD 64": which way, and bytes.
// FAKE_DRIVER_CLOSES: a named pipe; each close of a client's memory waits for a writer that comes and
// goes, while the pipe has its name.
// As the driver's own, calls that need a context answer so on a thread that has set none.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

#include "base/mutex.h"
#include "testing/fake_gpu.h"

namespace {

using penstock::FakeGpu;
using penstock::gpu::CopyKind;
using penstock::gpu::Error;
using penstock::gpu::Event;
using penstock::gpu::Graph;
using penstock::gpu::GraphExec;
using penstock::gpu::Stream;

constexpr int kDevices = 2;

FakeGpu& Gpu() {
  static auto& gpu = *new FakeGpu({.devices = kDevices});
  return gpu;
}

// Null: it is not set.
const char* Setting(const char* name) {
  return std::getenv(name);  // NOLINT(concurrency-mt-unsafe): nobody changes it
}

const char* Mood() {
  const char* mood = Setting("FAKE_DRIVER");
  return mood == nullptr ? "" : mood;
}

// The memory that was opened by handles.
struct Imports {
  penstock::Mutex mu;
  std::map<uintptr_t, size_t> sizes GUARDED_BY(mu);
};

Imports& OpenImports() {
  static auto& imports = *new Imports;
  return imports;
}

int ToResult(Error error) { return static_cast<int>(error); }

// CUDA's constants, as the driver's header has them.
constexpr unsigned kNonBlocking = 1, kNoTiming = 2, kPortableMapped = 3;
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76, kThreadLocal = 1;
constexpr uintptr_t kBeforeExport = 16;
constexpr unsigned kLazyPeerAccess = 1, kPortable = 1;
constexpr int kInvalidValue = 1, kInvalidContext = 201;

void NoteCopy(const char* way, size_t size) {
  static const char* const path = Setting("FAKE_DRIVER_COPIES");
  if (path == nullptr) return;
  std::FILE* file = std::fopen(path, "a");  // each line is one write
  if (file == nullptr) return;
  std::fprintf(file, "%s %zu\n", way, size);
  std::fclose(file);
}

void AwaitClose() {
  static const char* const path = Setting("FAKE_DRIVER_CLOSES");
  std::FILE* pipe = path == nullptr ? nullptr : std::fopen(path, "r");
  if (pipe == nullptr) return;
  std::fgetc(pipe);
  std::fclose(pipe);
}

penstock::gpu::DeviceProperties Properties(int device) {
  penstock::gpu::DeviceProperties properties;
  static_cast<void>(Gpu().GetProperties(device, &properties));
  return properties;
}

// The driver's addresses are numbers.
void* At(uintptr_t address) {
  return reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr)
}

// What a context is here: the number of its device, off by one.
void* ContextOf(int device) { return At(static_cast<uintptr_t>(device) + 1); }
int DeviceOf(void* context) { return static_cast<int>(reinterpret_cast<uintptr_t>(context)) - 1; }

// The context that is this thread's. A thread begins without one.
thread_local void* t_current = nullptr;

// What the driver answers to calls that need one, as its documentation has them: those that make
// something, and most that take a stream or an event.
template <typename Call>
int InContext(const Call& call) {
  return t_current == nullptr ? kInvalidContext : ToResult(call());
}

}  // namespace

extern "C" {

// For the test itself, which is linked with the same FakeGpu's code.
FakeGpu* penstock_fake_driver_gpu() { return &Gpu(); }

int cuInit(unsigned flags) {
  if (std::strncmp(Mood(), "error ", 6) == 0) return std::atoi(Mood() + 6);
  return flags == 0 ? 0 : kInvalidValue;
}
int cuDriverGetVersion(int* version) {
  *version = 13000;
  return 0;
}

int cuDeviceGetCount(int* count) {
  *count = std::strcmp(Mood(), "none") == 0 ? 0 : kDevices;
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal < kDevices ? 0 : ToResult(Error::kInvalidDevice);
}
int cuDeviceGetName(char* name, int size, int device) {
  std::snprintf(name, static_cast<size_t>(size), "%s", Properties(device).name.c_str());
  return 0;
}
int cuDeviceGetUuid_v2(uint8_t* uuid, int device) {
  const auto properties = Properties(device);
  std::memcpy(uuid, properties.uuid.data(), properties.uuid.size());
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  const auto properties = Properties(device);
  switch (attribute) {
    case kMultiprocessors:
      *value = properties.multiprocessors;
      return 0;
    case kMajor:
      *value = properties.compute_major;
      return 0;
    case kMinor:
      *value = properties.compute_minor;
      return 0;
    default:
      return kInvalidValue;
  }
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) {
  *bytes = Properties(device).memory_bytes;
  return 0;
}
int cuDeviceGetPCIBusId(char* id, int size, int device) {
  std::snprintf(id, static_cast<size_t>(size), "%s", Properties(device).pci_bus_id.c_str());
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  *context = ContextOf(device);
  return 0;
}
int cuCtxSetCurrent(void* context) {
  const Error error = context == nullptr ? Error::kSuccess : Gpu().SetDevice(DeviceOf(context));
  if (error == Error::kSuccess) t_current = context;
  return ToResult(error);
}
int cuMemGetInfo_v2(size_t* free_bytes, size_t* total_bytes) {
  return InContext([&] { return Gpu().MemoryInfo(free_bytes, total_bytes); });
}
int cuGetErrorName(int error, const char** name) {
  static thread_local std::string text;
  text = Gpu().ErrorName(static_cast<Error>(error));
  *name = text.c_str();
  return 0;
}
int cuStreamCreateWithPriority(Stream* stream, unsigned flags, int /*priority*/) {
  if (flags != kNonBlocking) return kInvalidValue;
  return InContext([&] { return Gpu().CreateStream(stream); });
}
int cuStreamDestroy_v2(Stream stream) {
  return InContext([&] { return Gpu().DestroyStream(stream); });
}
int cuStreamSynchronize(Stream stream) {
  return InContext([&] { return Gpu().SynchronizeStream(stream); });
}
int cuStreamWaitEvent(Stream stream, Event event, unsigned flags) {
  return flags == 0 ? InContext([&] { return Gpu().StreamWaitEvent(stream, event); })
                    : kInvalidValue;
}
int cuEventCreate(Event* event, unsigned flags) {
  return flags == kNoTiming ? InContext([&] { return Gpu().CreateEvent(event); }) : kInvalidValue;
}
int cuEventDestroy_v2(Event event) {
  return InContext([&] { return Gpu().DestroyEvent(event); });
}
int cuEventRecord(Event event, Stream stream) {
  return InContext([&] { return Gpu().RecordEvent(event, stream); });
}
int cuEventQuery(Event event) { return ToResult(Gpu().QueryEvent(event)); }
int cuMemHostAlloc(void** data, size_t size, unsigned flags) {
  return flags == kPortableMapped ? InContext([&] { return Gpu().AllocatePinned(size, data); })
                                  : kInvalidValue;
}
int cuMemFreeHost(void* data) {
  return InContext([&] { return Gpu().FreePinned(data); });
}
int cuMemHostRegister_v2(void* data, size_t size, unsigned flags) {
  return flags == kPortable ? InContext([&] { return Gpu().RegisterHost(data, size); })
                            : kInvalidValue;
}
int cuMemHostUnregister(void* data) {
  return InContext([&] { return Gpu().UnregisterHost(data); });
}
int cuMemAllocAsync(uintptr_t* address, size_t size, Stream stream) {
  void* data = nullptr;
  const Error error = Gpu().AllocateAsync(size, stream, &data);
  *address = reinterpret_cast<uintptr_t>(data);
  return ToResult(error);
}
int cuMemFreeAsync(uintptr_t address, Stream stream) {
  return ToResult(Gpu().FreeAsync(At(address), stream));
}
int cuIpcOpenMemHandle_v2(uintptr_t* address, penstock::gpu::IpcHandle handle, unsigned flags) {
  if (flags != kLazyPeerAccess) return kInvalidValue;
  if (t_current == nullptr) return kInvalidContext;
  void* data = nullptr;
  size_t size = 0;
  const Error error = Gpu().OpenIpcMemory(handle, &data, &size);
  if (error != Error::kSuccess) return ToResult(error);
  *address = reinterpret_cast<uintptr_t>(data);
  Imports& imports = OpenImports();
  const penstock::MutexLock lock(imports.mu);
  imports.sizes[*address] = size;
  return 0;
}
int cuIpcCloseMemHandle(uintptr_t address) {
  AwaitClose();
  {
    Imports& imports = OpenImports();
    const penstock::MutexLock lock(imports.mu);
    imports.sizes.erase(address);
  }
  return InContext([&] { return Gpu().CloseIpcMemory(At(address)); });
}
// As if the block began before what was exported.
int cuMemGetAddressRange_v2(uintptr_t* base, size_t* size, uintptr_t address) {
  if (t_current == nullptr) return kInvalidContext;
  Imports& imports = OpenImports();
  const penstock::MutexLock lock(imports.mu);
  const auto found = imports.sizes.find(address);
  if (found == imports.sizes.end()) return kInvalidValue;
  *base = address - kBeforeExport;
  *size = found->second + kBeforeExport;
  return 0;
}
int cuMemcpyHtoDAsync_v2(uintptr_t to, const void* from, size_t size, Stream stream) {
  NoteCopy("HtoD", size);
  return InContext([&] {
    return Gpu().CopyAsync({At(to), from, size}, CopyKind::kHostToDevice, stream);
  });
}
int cuMemcpyDtoHAsync_v2(void* to, uintptr_t from, size_t size, Stream stream) {
  NoteCopy("DtoH", size);
  return InContext([&] {
    return Gpu().CopyAsync({to, At(from), size}, CopyKind::kDeviceToHost, stream);
  });
}
int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t size, Stream stream) {
  NoteCopy("DtoD", size);
  return InContext([&] {
    return Gpu().CopyAsync({At(to), At(from), size}, CopyKind::kDeviceToDevice, stream);
  });
}
// NOLINTNEXTLINE(readability-function-size): the driver's parameters
int cuMemcpyPeerAsync(uintptr_t to, void* to_context, uintptr_t from, void* from_context,
                      size_t size, Stream stream) {
  NoteCopy("peer", size);
  return InContext([&] {
    return Gpu().CopyPeerAsync({At(to), At(from), size}, DeviceOf(to_context),
                               DeviceOf(from_context), stream);
  });
}
int cuStreamBeginCapture_v2(Stream stream, int mode) {
  return mode == kThreadLocal ? ToResult(Gpu().BeginCapture(stream)) : kInvalidValue;
}
int cuStreamEndCapture(Stream stream, Graph* graph) {
  return ToResult(Gpu().EndCapture(stream, graph));
}
int cuGraphInstantiateWithFlags(GraphExec* exec, Graph graph, uint64_t flags) {
  return flags == 0 ? ToResult(Gpu().Instantiate(graph, exec)) : kInvalidValue;
}
int cuGraphLaunch(GraphExec exec, Stream stream) {
  return ToResult(Gpu().LaunchGraph(exec, stream));
}
int cuGraphDestroy(Graph graph) { return ToResult(Gpu().DestroyGraph(graph)); }
int cuGraphExecDestroy(GraphExec exec) { return ToResult(Gpu().DestroyGraphExec(exec)); }
}
