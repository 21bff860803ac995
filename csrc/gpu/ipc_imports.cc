#include "gpu/ipc_imports.h"

#include <string>

#include "base/log.h"
#include "base/strcat.h"

namespace penstock::gpu {
namespace {

// The device's mapping of a client's memory.
class Import final : public ExportedMemory::Opened {
 public:
  Import(Api& api, DeviceHealth& health, int device, void* data)
      : api_(api), health_(health), device_(device), data_(data) {}
  // A lost device is left alone: it might never answer.
  ~Import() override {
    constexpr std::string_view kWhat = "close a client's memory";
    if (health_.is_faulted()) return;
    if (!health_.Check(api_.SetDevice(device_), kWhat).ok()) return;
    static_cast<void>(health_.Check(api_.CloseIpcMemory(data_), kWhat));
  }

  uint8_t* data() const { return static_cast<uint8_t*>(data_); }

 private:
  Api& api_;
  DeviceHealth& health_;
  const int device_;
  void* const data_;
};

}  // namespace

DeviceAddress IpcImports::Find(const ExportedMemory& memory) {
  if (memory.data() != nullptr) return {memory.data(), memory.device()};
  const auto* opened =
      static_cast<const Import*>(memory.OpenedBy(this, [&] { return Open(memory); }));
  return opened == nullptr ? DeviceAddress{} : DeviceAddress{opened->data(), device_};
}

std::unique_ptr<ExportedMemory::Opened> IpcImports::Open(const ExportedMemory& memory) {
  constexpr std::string_view kWhat = "open a client's memory";
  const auto refused = [&](std::string_view why) {
    Log(LogLevel::kWarning, "gpu",
        StrCat("GPU ", device_, " does not reach ", memory.size_bytes(),
               " bytes of a client's memory on GPU ", memory.device(), ": ", why,
               "; requests that lie there go through the host's"));
    return nullptr;
  };
  void* data = nullptr;
  size_t size_bytes = 0;
  Status opened = health_.fault();
  if (opened.ok()) opened = health_.Check(api_.SetDevice(device_), kWhat);
  if (opened.ok()) {
    opened = health_.Check(api_.OpenIpcMemory(memory.handle(), &data, &size_bytes), kWhat);
  }
  if (!opened.ok()) return refused(opened.message());
  auto import = std::make_unique<Import>(api_, health_, device_, data);
  if (memory.size_bytes() <= size_bytes) return import;
  return refused(StrCat("it has ", size_bytes, " bytes"));
}

}  // namespace penstock::gpu
