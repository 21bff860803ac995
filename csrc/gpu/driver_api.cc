#include "gpu/driver_api.h"

#include <dlfcn.h>

#include <map>
#include <utility>

#include "base/log.h"
#include "base/mutex.h"
#include "base/strcat.h"

namespace penstock::gpu {
namespace {

// The driver's own names for what it hands out. An address on a device is a number to it.
using Result32 = int;  // CUresult: the runtime's numbers
using DeviceNumber = int;
using Context = void*;
using Address = uintptr_t;

// Of its enumerations, what is used here.
constexpr int kMultiprocessors = 16, kMajor = 75, kMinor = 76;
constexpr unsigned kStreamNonBlocking = 1, kEventDisableTiming = 2;
constexpr unsigned kHostPortable = 1, kHostMapped = 2, kRegisterPortable = 1;
constexpr int kCaptureThreadLocal = 1;
constexpr unsigned kIpcLazyPeerAccess = 1;
constexpr int kTextBytes = 256;

// Member, symbol, arguments; each answers a CUresult.
// clang-format off
#define PENSTOCK_DRIVER_CALLS(CALL)                                                   \
  CALL(Init, "cuInit", unsigned)                                                      \
  CALL(DeviceGetCount, "cuDeviceGetCount", int*)                                      \
  CALL(DeviceGet, "cuDeviceGet", DeviceNumber*, int)                                  \
  CALL(DeviceGetName, "cuDeviceGetName", char*, int, DeviceNumber)                    \
  CALL(DeviceGetUuid, "cuDeviceGetUuid_v2", uint8_t*, DeviceNumber)                   \
  CALL(DeviceGetAttribute, "cuDeviceGetAttribute", int*, int, DeviceNumber)           \
  CALL(DeviceTotalMem, "cuDeviceTotalMem_v2", size_t*, DeviceNumber)                  \
  CALL(DeviceGetPciBusId, "cuDeviceGetPCIBusId", char*, int, DeviceNumber)            \
  CALL(PrimaryRetain, "cuDevicePrimaryCtxRetain", Context*, DeviceNumber)             \
  CALL(CtxSetCurrent, "cuCtxSetCurrent", Context)                                     \
  CALL(MemGetInfo, "cuMemGetInfo_v2", size_t*, size_t*)                               \
  CALL(GetErrorName, "cuGetErrorName", Result32, const char**)                        \
  CALL(StreamCreate, "cuStreamCreateWithPriority", Stream*, unsigned, int)            \
  CALL(StreamDestroy, "cuStreamDestroy_v2", Stream)                                   \
  CALL(StreamSynchronize, "cuStreamSynchronize", Stream)                              \
  CALL(StreamWaitEvent, "cuStreamWaitEvent", Stream, Event, unsigned)                 \
  CALL(EventCreate, "cuEventCreate", Event*, unsigned)                                \
  CALL(EventDestroy, "cuEventDestroy_v2", Event)                                      \
  CALL(EventRecord, "cuEventRecord", Event, Stream)                                   \
  CALL(EventQuery, "cuEventQuery", Event)                                             \
  CALL(MemHostAlloc, "cuMemHostAlloc", void**, size_t, unsigned)                      \
  CALL(MemFreeHost, "cuMemFreeHost", void*)                                           \
  CALL(MemHostRegister, "cuMemHostRegister_v2", void*, size_t, unsigned)              \
  CALL(MemHostUnregister, "cuMemHostUnregister", void*)                               \
  CALL(MemAllocAsync, "cuMemAllocAsync", Address*, size_t, Stream)                    \
  CALL(MemFreeAsync, "cuMemFreeAsync", Address, Stream)                               \
  CALL(IpcOpenMemHandle, "cuIpcOpenMemHandle_v2", Address*, IpcHandle, unsigned)      \
  CALL(IpcCloseMemHandle, "cuIpcCloseMemHandle", Address)                             \
  CALL(MemGetAddressRange, "cuMemGetAddressRange_v2", Address*, size_t*, Address)     \
  CALL(MemcpyToDevice, "cuMemcpyHtoDAsync_v2", Address, const void*, size_t, Stream)  \
  CALL(MemcpyToHost, "cuMemcpyDtoHAsync_v2", void*, Address, size_t, Stream)          \
  CALL(MemcpyOnDevice, "cuMemcpyDtoDAsync_v2", Address, Address, size_t, Stream)      \
  CALL(MemcpyPeer, "cuMemcpyPeerAsync", Address, Context, Address, Context, size_t, Stream) \
  CALL(StreamBeginCapture, "cuStreamBeginCapture_v2", Stream, int)                    \
  CALL(StreamEndCapture, "cuStreamEndCapture", Stream, Graph*)                        \
  CALL(GraphInstantiate, "cuGraphInstantiateWithFlags", GraphExec*, Graph, uint64_t)  \
  CALL(GraphLaunch, "cuGraphLaunch", GraphExec, Stream)                               \
  CALL(GraphDestroy, "cuGraphDestroy", Graph)                                         \
  CALL(GraphExecDestroy, "cuGraphExecDestroy", GraphExec)
// clang-format on

struct Calls {
#define PENSTOCK_DRIVER_MEMBER(name, symbol, ...) Result32 (*name)(__VA_ARGS__) = nullptr;
  PENSTOCK_DRIVER_CALLS(PENSTOCK_DRIVER_MEMBER)
#undef PENSTOCK_DRIVER_MEMBER

  // The first that the library lacks; null: none.
  const char* Fill(void* library) {
#define PENSTOCK_DRIVER_FILL(name, symbol, ...)                    \
  name = reinterpret_cast<decltype(name)>(dlsym(library, symbol)); \
  if ((name) == nullptr) return symbol;
    PENSTOCK_DRIVER_CALLS(PENSTOCK_DRIVER_FILL)
#undef PENSTOCK_DRIVER_FILL
    return nullptr;
  }
};

Error ToError(Result32 result) { return static_cast<Error>(result); }

Address AddressOf(const void* data) { return reinterpret_cast<Address>(data); }

// Primary contexts are kept: the process has them to its end, as with CUDA's runtime.
class DriverApi final : public Api {
 public:
  explicit DriverApi(const Calls& calls) : calls_(calls) {}

  Error DeviceCount(int* count) override { return ToError(calls_.DeviceGetCount(count)); }
  Error GetProperties(int device, DeviceProperties* properties) override;
  Error SetDevice(int device) override EXCLUDES(mu_);
  Error MemoryInfo(size_t* free_bytes, size_t* total_bytes) override {
    return ToError(calls_.MemGetInfo(free_bytes, total_bytes));
  }
  std::string_view ErrorName(Error error) const override;
  Error TakeLastError() override { return Error::kSuccess; }  // the driver remembers none

  Error CreateStream(Stream* stream) override {
    return ToError(calls_.StreamCreate(stream, kStreamNonBlocking, /*priority=*/0));
  }
  Error DestroyStream(Stream stream) override { return ToError(calls_.StreamDestroy(stream)); }
  Error SynchronizeStream(Stream stream) override {
    return ToError(calls_.StreamSynchronize(stream));
  }
  Error StreamWaitEvent(Stream stream, Event event) override {
    return ToError(calls_.StreamWaitEvent(stream, event, 0));
  }

  Error CreateEvent(Event* event) override {
    return ToError(calls_.EventCreate(event, kEventDisableTiming));
  }
  Error DestroyEvent(Event event) override { return ToError(calls_.EventDestroy(event)); }
  Error RecordEvent(Event event, Stream stream) override {
    return ToError(calls_.EventRecord(event, stream));
  }
  Error QueryEvent(Event event) override { return ToError(calls_.EventQuery(event)); }

  Error AllocatePinned(size_t size_bytes, void** data) override {
    return ToError(calls_.MemHostAlloc(data, size_bytes, kHostPortable | kHostMapped));
  }
  Error FreePinned(void* data) override { return ToError(calls_.MemFreeHost(data)); }
  Error RegisterHost(void* data, size_t size_bytes) override {
    return ToError(calls_.MemHostRegister(data, size_bytes, kRegisterPortable));
  }
  Error UnregisterHost(void* data) override { return ToError(calls_.MemHostUnregister(data)); }

  Error AllocateAsync(size_t size_bytes, Stream stream, void** data) override;
  Error FreeAsync(void* data, Stream stream) override {
    return ToError(calls_.MemFreeAsync(AddressOf(data), stream));
  }

  Error OpenIpcMemory(const IpcHandle& handle, void** data, size_t* size_bytes) override;
  Error CloseIpcMemory(void* data) override {
    return ToError(calls_.IpcCloseMemHandle(AddressOf(data)));
  }

  Error CopyAsync(const Copy& copy, CopyKind kind, Stream stream) override;
  Error CopyPeerAsync(const Copy& copy, int to_device, int from_device, Stream stream) override;
  // The driver's own batch changed its signature from one major to the next.
  Error CopyBatchAsync(std::span<const Copy> copies, CopyKind kind, Stream stream) override;

  Error BeginCapture(Stream stream) override {
    return ToError(calls_.StreamBeginCapture(stream, kCaptureThreadLocal));
  }
  Error EndCapture(Stream stream, Graph* graph) override {
    return ToError(calls_.StreamEndCapture(stream, graph));
  }
  Error Instantiate(Graph graph, GraphExec* exec) override {
    return ToError(calls_.GraphInstantiate(exec, graph, 0));
  }
  Error LaunchGraph(GraphExec exec, Stream stream) override {
    return ToError(calls_.GraphLaunch(exec, stream));
  }
  Error DestroyGraph(Graph graph) override { return ToError(calls_.GraphDestroy(graph)); }
  Error DestroyGraphExec(GraphExec exec) override { return ToError(calls_.GraphExecDestroy(exec)); }

 private:
  Error ContextOf(int device, Context* context) EXCLUDES(mu_);

  // Constant after construction.
  const Calls calls_;

  Mutex mu_;
  // Guarded by mu_.
  std::map<int, Context> contexts_ GUARDED_BY(mu_);  // retained, by device
};

Error DriverApi::GetProperties(int device, DeviceProperties* properties) {
  DeviceNumber number = 0;
  DeviceProperties found;
  char name[kTextBytes] = "";
  char bus[kTextBytes] = "";
  const Result32 answers[] = {
      calls_.DeviceGet(&number, device),
      calls_.DeviceGetName(name, kTextBytes, number),
      calls_.DeviceGetUuid(found.uuid.data(), number),
      calls_.DeviceGetAttribute(&found.compute_major, kMajor, number),
      calls_.DeviceGetAttribute(&found.compute_minor, kMinor, number),
      calls_.DeviceGetAttribute(&found.multiprocessors, kMultiprocessors, number),
      calls_.DeviceTotalMem(&found.memory_bytes, number),
      calls_.DeviceGetPciBusId(bus, kTextBytes, number)};
  for (const Result32 answer : answers) {
    if (answer != 0) return ToError(answer);
  }
  found.name = name;
  found.pci_bus_id = bus;
  *properties = std::move(found);
  return Error::kSuccess;
}

Error DriverApi::ContextOf(int device, Context* context) {
  MutexLock lock(mu_);
  if (const auto found = contexts_.find(device); found != contexts_.end()) {
    *context = found->second;
    return Error::kSuccess;
  }
  DeviceNumber number = 0;
  if (const Result32 got = calls_.DeviceGet(&number, device); got != 0) return ToError(got);
  if (const Result32 got = calls_.PrimaryRetain(context, number); got != 0) return ToError(got);
  contexts_[device] = *context;
  return Error::kSuccess;
}

Error DriverApi::SetDevice(int device) {
  Context context = nullptr;
  if (const Error error = ContextOf(device, &context); error != Error::kSuccess) return error;
  return ToError(calls_.CtxSetCurrent(context));
}

std::string_view DriverApi::ErrorName(Error error) const {
  const char* name = nullptr;
  const Result32 answer = calls_.GetErrorName(static_cast<Result32>(error), &name);
  return answer == 0 && name != nullptr ? name : "an error that the driver has no name for";
}

Error DriverApi::AllocateAsync(size_t size_bytes, Stream stream, void** data) {
  Address address = 0;
  const Result32 answer = calls_.MemAllocAsync(&address, size_bytes, stream);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the driver's address is the runtime's pointer
  if (answer == 0) *data = reinterpret_cast<void*>(address);
  return ToError(answer);
}

// The handle goes by value, as the driver's structure of as many bytes does.
Error DriverApi::OpenIpcMemory(const IpcHandle& handle, void** data, size_t* size_bytes) {
  Address opened = 0;
  if (const Result32 answer = calls_.IpcOpenMemHandle(&opened, handle, kIpcLazyPeerAccess);
      answer != 0) {
    return ToError(answer);
  }
  Address base = 0;
  size_t whole = 0;  // of the block, in which the exported memory may begin later
  if (const Result32 answer = calls_.MemGetAddressRange(&base, &whole, opened); answer != 0) {
    static_cast<void>(calls_.IpcCloseMemHandle(opened));
    return ToError(answer);
  }
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the driver's address is the runtime's pointer
  *data = reinterpret_cast<void*>(opened);
  *size_bytes = whole - (opened - base);
  return Error::kSuccess;
}

Error DriverApi::CopyAsync(const Copy& copy, CopyKind kind, Stream stream) {
  switch (kind) {
    case CopyKind::kHostToDevice:
      return ToError(calls_.MemcpyToDevice(AddressOf(copy.to), copy.from, copy.size_bytes, stream));
    case CopyKind::kDeviceToHost:
      return ToError(calls_.MemcpyToHost(copy.to, AddressOf(copy.from), copy.size_bytes, stream));
    case CopyKind::kDeviceToDevice:
      return ToError(
          calls_.MemcpyOnDevice(AddressOf(copy.to), AddressOf(copy.from), copy.size_bytes, stream));
  }
  return Error::kInvalidValue;
}

Error DriverApi::CopyPeerAsync(const Copy& copy, int to_device, int from_device, Stream stream) {
  Context to = nullptr;
  Context from = nullptr;
  if (const Error error = ContextOf(to_device, &to); error != Error::kSuccess) return error;
  if (const Error error = ContextOf(from_device, &from); error != Error::kSuccess) return error;
  return ToError(calls_.MemcpyPeer(AddressOf(copy.to), to, AddressOf(copy.from), from,
                                   copy.size_bytes, stream));
}

Error DriverApi::CopyBatchAsync(std::span<const Copy> copies, CopyKind kind, Stream stream) {
  for (const Copy& copy : copies) {
    if (const Error error = CopyAsync(copy, kind, stream); error != Error::kSuccess) return error;
  }
  return Error::kSuccess;
}

}  // namespace

Result<std::unique_ptr<Api>> OpenDriverApi(const std::string& library) {
  void* opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) {
    // It holds paths: for the log, not for clients.
    Log(LogLevel::kInfo, "gpu", dlerror());  // NOLINT(concurrency-mt-unsafe): per thread
    return Unavailable("there is no CUDA driver on this machine");
  }
  Calls calls;
  if (const char* missing = calls.Fill(opened); missing != nullptr) {
    return Unavailable(StrCat("the CUDA driver is too old: it has no ", missing));
  }
  auto api = std::make_unique<DriverApi>(calls);
  int count = 0;
  Error error = ToError(calls.Init(0));
  if (error == Error::kSuccess) error = api->DeviceCount(&count);
  if (error != Error::kSuccess) {
    return Unavailable(StrCat("the CUDA driver finds no device: ", api->ErrorName(error)));
  }
  if (count == 0) return Unavailable("the CUDA driver finds no device");
  return std::unique_ptr<Api>(std::move(api));
}

int DriverCudaVersion(const std::string& library) {
  void* opened = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (opened == nullptr) return 0;
  auto* get_version = reinterpret_cast<Result32 (*)(int*)>(dlsym(opened, "cuDriverGetVersion"));
  int version = 0;
  return get_version != nullptr && get_version(&version) == 0 ? version : 0;
}

}  // namespace penstock::gpu
