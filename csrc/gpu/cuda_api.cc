#include "gpu/cuda_api.h"

#include <cuda_runtime_api.h>

#include <cstring>
#include <string>
#include <vector>

#include "base/strcat.h"

namespace penstock::gpu {
namespace {

Error ToError(cudaError_t error) { return static_cast<Error>(error); }
cudaStream_t Native(Stream stream) { return reinterpret_cast<cudaStream_t>(stream); }
cudaEvent_t Native(Event event) { return reinterpret_cast<cudaEvent_t>(event); }
cudaGraph_t Native(Graph graph) { return reinterpret_cast<cudaGraph_t>(graph); }
cudaGraphExec_t Native(GraphExec exec) { return reinterpret_cast<cudaGraphExec_t>(exec); }

cudaMemcpyKind Native(CopyKind kind) {
  switch (kind) {
    case CopyKind::kHostToDevice:
      return cudaMemcpyHostToDevice;
    case CopyKind::kDeviceToHost:
      return cudaMemcpyDeviceToHost;
    case CopyKind::kDeviceToDevice:
      return cudaMemcpyDeviceToDevice;
  }
  return cudaMemcpyDefault;
}

// Calls a function that makes a native handle, and hands it out as ours.
template <typename Native, typename Ours, typename Call>
Error Make(Ours* ours, Call call) {
  Native native = nullptr;
  const cudaError_t error = call(&native);
  if (error == cudaSuccess) *ours = reinterpret_cast<Ours>(native);
  return ToError(error);
}

// cudaMemcpyBatchAsync's arguments, which want an array for each field.
struct CopyArrays {
  explicit CopyArrays(std::span<const Copy> copies) {
    for (const Copy& copy : copies) {
      to.push_back(copy.to);
      from.push_back(copy.from);
      sizes.push_back(copy.size_bytes);
    }
  }
  std::vector<void*> to;
  std::vector<const void*> from;
  std::vector<size_t> sizes;
};

// How many bytes there are from `data` to the end of its allocation. The runtime has no function
// for it; it opens the driver's for us.
cudaError_t AllocatedBytes(const void* data, size_t* size_bytes) {
  using GetAddressRange = int (*)(uintptr_t * base, size_t * size_bytes, uintptr_t data);
  constexpr unsigned kVersion = 3020;  // the driver's, since which the function is this one
  void* found = nullptr;
  cudaDriverEntryPointQueryResult answer = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuMemGetAddressRange", &found,
                                                             kVersion, cudaEnableDefault, &answer);
  if (error != cudaSuccess) return error;
  if (answer != cudaDriverEntryPointSuccess || found == nullptr) return cudaErrorNotSupported;
  uintptr_t base = 0;
  size_t whole = 0;
  const auto at = reinterpret_cast<uintptr_t>(data);
  const int result = reinterpret_cast<GetAddressRange>(found)(&base, &whole, at);
  if (result == 0) *size_bytes = whole - (at - base);
  return static_cast<cudaError_t>(result);  // their numbers are one list
}

class CudaApi final : public Api {
 public:
  Error DeviceCount(int* count) override { return ToError(cudaGetDeviceCount(count)); }
  Error GetProperties(int device, DeviceProperties* properties) override;
  Error SetDevice(int device) override { return ToError(cudaSetDevice(device)); }
  Error MemoryInfo(size_t* free_bytes, size_t* total_bytes) override {
    return ToError(cudaMemGetInfo(free_bytes, total_bytes));
  }
  std::string_view ErrorName(Error error) const override {
    return cudaGetErrorName(static_cast<cudaError_t>(error));
  }
  Error TakeLastError() override { return ToError(cudaGetLastError()); }

  Error CreateStream(Stream* stream) override {
    return Make<cudaStream_t>(stream, [](cudaStream_t* native) {
      return cudaStreamCreateWithFlags(native, cudaStreamNonBlocking);
    });
  }
  Error DestroyStream(Stream stream) override { return ToError(cudaStreamDestroy(Native(stream))); }
  Error SynchronizeStream(Stream stream) override {
    return ToError(cudaStreamSynchronize(Native(stream)));
  }
  Error StreamWaitEvent(Stream stream, Event event) override {
    return ToError(cudaStreamWaitEvent(Native(stream), Native(event), cudaEventWaitDefault));
  }

  Error CreateEvent(Event* event) override {
    return Make<cudaEvent_t>(event, [](cudaEvent_t* native) {
      return cudaEventCreateWithFlags(native, cudaEventDisableTiming);
    });
  }
  Error DestroyEvent(Event event) override { return ToError(cudaEventDestroy(Native(event))); }
  Error RecordEvent(Event event, Stream stream) override {
    return ToError(cudaEventRecord(Native(event), Native(stream)));
  }
  Error QueryEvent(Event event) override;

  Error AllocatePinned(size_t size_bytes, void** data) override {
    return ToError(cudaHostAlloc(data, size_bytes, cudaHostAllocPortable | cudaHostAllocMapped));
  }
  Error FreePinned(void* data) override { return ToError(cudaFreeHost(data)); }
  Error RegisterHost(void* data, size_t size_bytes) override {
    return ToError(cudaHostRegister(data, size_bytes, cudaHostRegisterPortable));
  }
  Error UnregisterHost(void* data) override { return ToError(cudaHostUnregister(data)); }

  Error AllocateAsync(size_t size_bytes, Stream stream, void** data) override {
    return ToError(cudaMallocAsync(data, size_bytes, Native(stream)));
  }
  Error FreeAsync(void* data, Stream stream) override {
    return ToError(cudaFreeAsync(data, Native(stream)));
  }

  Error OpenIpcMemory(const IpcHandle& handle, void** data, size_t* size_bytes) override;
  Error CloseIpcMemory(void* data) override { return ToError(cudaIpcCloseMemHandle(data)); }

  Error CopyAsync(const Copy& copy, CopyKind kind, Stream stream) override {
    return ToError(
        cudaMemcpyAsync(copy.to, copy.from, copy.size_bytes, Native(kind), Native(stream)));
  }
  Error CopyPeerAsync(const Copy& copy, int to_device, int from_device, Stream stream) override {
    return ToError(cudaMemcpyPeerAsync(copy.to, to_device, copy.from, from_device, copy.size_bytes,
                                       Native(stream)));
  }
  Error CopyBatchAsync(std::span<const Copy> copies, CopyKind kind, Stream stream) override;

  Error BeginCapture(Stream stream) override {
    return ToError(cudaStreamBeginCapture(Native(stream), cudaStreamCaptureModeThreadLocal));
  }
  Error EndCapture(Stream stream, Graph* graph) override {
    return Make<cudaGraph_t>(
        graph, [=](cudaGraph_t* native) { return cudaStreamEndCapture(Native(stream), native); });
  }
  Error Instantiate(Graph graph, GraphExec* exec) override {
    return Make<cudaGraphExec_t>(exec, [=](cudaGraphExec_t* native) {
      return cudaGraphInstantiate(native, Native(graph), 0);
    });
  }
  Error LaunchGraph(GraphExec exec, Stream stream) override {
    return ToError(cudaGraphLaunch(Native(exec), Native(stream)));
  }
  Error DestroyGraph(Graph graph) override { return ToError(cudaGraphDestroy(Native(graph))); }
  Error DestroyGraphExec(GraphExec exec) override {
    return ToError(cudaGraphExecDestroy(Native(exec)));
  }
};

Error CudaApi::GetProperties(int device, DeviceProperties* properties) {
  cudaDeviceProp native;
  if (const cudaError_t error = cudaGetDeviceProperties(&native, device); error != cudaSuccess) {
    return ToError(error);
  }
  char pci_bus_id[32] = "";
  if (const cudaError_t error = cudaDeviceGetPCIBusId(pci_bus_id, sizeof(pci_bus_id), device);
      error != cudaSuccess) {
    return ToError(error);
  }
  *properties = {.name = native.name,
                 .uuid = {},
                 .compute_major = native.major,
                 .compute_minor = native.minor,
                 .multiprocessors = native.multiProcessorCount,
                 .memory_bytes = native.totalGlobalMem,
                 .pci_bus_id = pci_bus_id};
  static_assert(sizeof(native.uuid.bytes) == 16);
  std::memcpy(properties->uuid.data(), native.uuid.bytes, properties->uuid.size());
  return Error::kSuccess;
}

Error CudaApi::QueryEvent(Event event) {
  const cudaError_t error = cudaEventQuery(Native(event));
  // It would be what the next launch on this thread seems to have answered.
  if (error == cudaErrorNotReady) static_cast<void>(cudaGetLastError());
  return ToError(error);
}

Error CudaApi::OpenIpcMemory(const IpcHandle& handle, void** data, size_t* size_bytes) {
  cudaIpcMemHandle_t native;
  static_assert(sizeof(native) == sizeof(handle));
  std::memcpy(&native, handle.data(), handle.size());
  void* opened = nullptr;
  if (const cudaError_t error =
          cudaIpcOpenMemHandle(&opened, native, cudaIpcMemLazyEnablePeerAccess);
      error != cudaSuccess) {
    return ToError(error);
  }
  if (const cudaError_t error = AllocatedBytes(opened, size_bytes); error != cudaSuccess) {
    static_cast<void>(cudaIpcCloseMemHandle(opened));
    return ToError(error);
  }
  *data = opened;
  return Error::kSuccess;
}

Error CudaApi::CopyBatchAsync(std::span<const Copy> copies, CopyKind kind, Stream stream) {
#if CUDART_VERSION >= 13000
  static_cast<void>(kind);  // it follows from the pointers
  const CopyArrays arrays(copies);
  cudaMemcpyAttributes attributes = {};
  attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  size_t first = 0;  // the attributes are for all copies from this one on
  return ToError(cudaMemcpyBatchAsync(arrays.to.data(), arrays.from.data(), arrays.sizes.data(),
                                      copies.size(), &attributes, &first, 1, Native(stream)));
#else
  for (const Copy& copy : copies) {
    if (const Error error = CopyAsync(copy, kind, stream); error != Error::kSuccess) return error;
  }
  return Error::kSuccess;
#endif
}

}  // namespace

Result<std::unique_ptr<Api>> OpenCudaApi() {
  int version = 0;  // 0: there is no driver
  if (cudaDriverGetVersion(&version) != cudaSuccess || version == 0) {
    return Unavailable("there is no CUDA driver on this machine");
  }
  std::unique_ptr<Api> api = std::make_unique<CudaApi>();
  int count = 0;
  if (const Error error = api->DeviceCount(&count); error != Error::kSuccess || count == 0) {
    return Unavailable(StrCat("CUDA finds no device: ", api->ErrorName(error), "; driver ", version,
                              ", runtime ", CUDART_VERSION));
  }
  return api;
}

}  // namespace penstock::gpu
