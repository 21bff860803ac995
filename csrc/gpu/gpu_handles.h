// Owners of what the GPU's runtime hands out, which give it back when they go.

#pragma once

#include <utility>

#include "gpu/gpu_api.h"

namespace penstock::gpu {

// Threading: thread-compatible. Ownership: owns the handle; borrows the Api.
// Errors: what giving back answers is dropped: a sticky error has been met before, and there is
// nothing to do about another.
template <typename Handle, Error (Api::*kGiveBack)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(Api& api, Handle handle) : api_(&api), handle_(handle) {}
  // One that somebody else gives back, after this.
  static Owned Borrowed(Handle handle) {
    Owned borrowed;
    borrowed.handle_ = handle;
    return borrowed;
  }
  Owned(Owned&& other) noexcept
      : api_(std::exchange(other.api_, nullptr)), handle_(std::exchange(other.handle_, Handle{})) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (api_ != nullptr) static_cast<void>((api_->*kGiveBack)(handle_));
  }

  Handle get() const { return handle_; }

 private:
  Api* api_ = nullptr;
  Handle handle_ = {};
};

using OwnedStream = Owned<Stream, &Api::DestroyStream>;
using OwnedEvent = Owned<Event, &Api::DestroyEvent>;
using OwnedGraph = Owned<Graph, &Api::DestroyGraph>;
using OwnedGraphExec = Owned<GraphExec, &Api::DestroyGraphExec>;

// A block of device memory, given back in the order of the stream that it was taken on.
// Ownership: borrows the Api and the stream, which outlive it.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(Api& api, Stream stream, void* data) : api_(&api), stream_(stream), data_(data) {}
  DeviceMemory(DeviceMemory&& other) noexcept
      : api_(std::exchange(other.api_, nullptr)), stream_(other.stream_), data_(other.data_) {}
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(api_, other.api_);
    std::swap(stream_, other.stream_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~DeviceMemory() {
    if (api_ != nullptr) static_cast<void>(api_->FreeAsync(data_, stream_));
  }

  void* data() const { return data_; }
  // Leaves the block to the end of the process.
  void Abandon() { api_ = nullptr; }

 private:
  Api* api_ = nullptr;
  Stream stream_ = nullptr;
  void* data_ = nullptr;
};

}  // namespace penstock::gpu
