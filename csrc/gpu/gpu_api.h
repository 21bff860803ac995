// Api: the calls of a GPU's runtime that the core makes, and no others, behind one interface.
//
// Everything above it (lanes, graphs, staging, completion, errors) is ours and knows only this, so
// that it is tested without a GPU: csrc/testing/fake_gpu.h runs streams as threads. cuda_api.h is
// the CUDA runtime; each of its calls is the function of CUDA that the comment here names.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "gpu/gpu_error.h"
#include "memory/exported_memory.h"

namespace penstock::gpu {

// Handles, owned by whoever created them; null = none.
using Stream = struct StreamHandle*;
using Event = struct EventHandle*;
using Graph = struct GraphHandle*;          // what was captured
using GraphExec = struct GraphExecHandle*;  // that, ready to be launched

struct DeviceProperties {
  std::string name;
  std::array<uint8_t, 16> uuid = {};
  int compute_major = 0, compute_minor = 0;
  int multiprocessors = 0;
  size_t memory_bytes = 0;
  std::string pci_bus_id = {};  // "0000:1b:00.0": sysfs has its CPUs by it
};

// cudaIpcMemHandle_t: memory on a device that a process exports, as another one opens it.
using IpcHandle = ExportedMemory::Handle;

enum class CopyKind { kHostToDevice, kDeviceToHost, kDeviceToDevice };

struct Copy {
  void* to = nullptr;
  const void* from = nullptr;
  size_t size_bytes = 0;
};

// Errors: each call answers what the runtime does, which may be the error of work that was enqueued
// before; what is returned through pointers is written on success only. Nothing here logs or
// retries: see DeviceHealth.
//
// Threading: thread-safe, as CUDA's runtime is; SetDevice is per thread. One stream is enqueued to
// by one thread at a time.
// Ownership: what was created is destroyed by the same Api, before it goes.
// Blocking: SynchronizeStream, the calls for pinned memory and for other processes', and Instantiate may; the rest enqueues.
class Api {
 public:
  virtual ~Api() = default;

  // -- devices
  virtual Error DeviceCount(int* count) = 0;  // cudaGetDeviceCount
  virtual Error GetProperties(int device, DeviceProperties* properties) = 0;
  virtual Error SetDevice(int device) = 0;  // cudaSetDevice: this thread's calls are for it
  virtual Error MemoryInfo(size_t* free_bytes, size_t* total_bytes) = 0;  // cudaMemGetInfo
  // cudaErrorName: "cudaErrorIllegalAddress"
  virtual std::string_view ErrorName(Error error) const = 0;
  // cudaGetLastError: of this thread's calls of this runtime alone; forgotten unless it is sticky.
  virtual Error TakeLastError() = 0;

  // -- streams
  // cudaStreamCreateWithFlags: one that does not wait for the default stream
  virtual Error CreateStream(Stream* stream) = 0;
  virtual Error DestroyStream(Stream stream) = 0;
  virtual Error SynchronizeStream(Stream stream) = 0;
  // cudaStreamWaitEvent: what `stream` is given from now on waits for the event's last record.
  virtual Error StreamWaitEvent(Stream stream, Event event) = 0;

  // -- events
  virtual Error CreateEvent(Event* event) = 0;  // without times, which cost at every record
  virtual Error DestroyEvent(Event event) = 0;
  virtual Error RecordEvent(Event event, Stream stream) = 0;
  virtual Error QueryEvent(Event event) = 0;  // kSuccess: over; kNotReady: not yet

  // -- host memory that the device reads and writes by itself
  virtual Error AllocatePinned(size_t size_bytes, void** data) = 0;  // cudaHostAlloc, portable
  virtual Error FreePinned(void* data) = 0;
  // cudaHostRegister, portable: memory that exists, until UnregisterHost.
  virtual Error RegisterHost(void* data, size_t size_bytes) = 0;
  virtual Error UnregisterHost(void* data) = 0;  // cudaHostUnregister

  // -- device memory, from the device's default pool
  virtual Error AllocateAsync(size_t size_bytes, Stream stream, void** data) = 0;
  // The pool keeps it until a stream is next waited for (SynchronizeStream).
  virtual Error FreeAsync(void* data, Stream stream) = 0;

  // -- memory of other processes
  // cudaIpcOpenMemHandle, on this thread's device, and cuMemGetAddressRange: `data` is what the
  // exporter exported, `size_bytes` what lies there. Opened twice it is closed twice.
  virtual Error OpenIpcMemory(const IpcHandle& handle, void** data, size_t* size_bytes) = 0;
  virtual Error CloseIpcMemory(void* data) = 0;  // cudaIpcCloseMemHandle

  // -- copies
  // kDeviceToDevice: on the stream's device, and what that has mapped of others.
  virtual Error CopyAsync(const Copy& copy, CopyKind kind, Stream stream) = 0;
  // cudaMemcpyPeerAsync: between memory of two devices, whether or not one sees the other's.
  virtual Error CopyPeerAsync(const Copy& copy, int to_device, int from_device, Stream stream) = 0;
  // cudaMemcpyBatchAsync: several in one call, in no order among themselves.
  virtual Error CopyBatchAsync(std::span<const Copy> copies, CopyKind kind, Stream stream) = 0;

  // -- graphs
  // cudaStreamBeginCapture, thread-local: other threads go on allocating.
  virtual Error BeginCapture(Stream stream) = 0;
  virtual Error EndCapture(Stream stream, Graph* graph) = 0;
  virtual Error Instantiate(Graph graph, GraphExec* exec) = 0;
  virtual Error LaunchGraph(GraphExec exec, Stream stream) = 0;
  virtual Error DestroyGraph(Graph graph) = 0;
  virtual Error DestroyGraphExec(GraphExec exec) = 0;
};

}  // namespace penstock::gpu
