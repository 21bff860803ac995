// IpcImports: how a device of this process gets at clients' memory on GPUs.

#pragma once

#include <cstdint>
#include <memory>

#include "gpu/device_health.h"
#include "gpu/gpu_api.h"
#include "memory/exported_memory.h"

namespace penstock::gpu {

// Memory of a device, as copies of this process name it.
struct DeviceAddress {
  uint8_t* data = nullptr;  // null: there is none
  int device = 0;
};

// Threading: thread-safe.
// Ownership: borrows Api and health; outlives the memories that it was asked for.
// Blocking: Find, where it opens.
class IpcImports {
 public:
  IpcImports(Api& api, DeviceHealth& health, int device)
      : api_(api), health_(health), device_(device) {}
  IpcImports(const IpcImports&) = delete;
  IpcImports& operator=(const IpcImports&) = delete;

  // Where `memory` begins: as this process has it, on whichever device, or else opened by its handle
  // on this one, once; that is closed with the memory. Null where it does not open, or is smaller
  // than it says: the log says so once.
  DeviceAddress Find(const ExportedMemory& memory);

 private:
  std::unique_ptr<ExportedMemory::Opened> Open(const ExportedMemory& memory);

  Api& api_;
  DeviceHealth& health_;
  const int device_;
};

}  // namespace penstock::gpu
