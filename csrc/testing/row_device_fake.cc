#include <dlfcn.h>

#include <utility>

#include "testing/fake_gpu.h"
#include "testing/row_device.h"

namespace penstock {
namespace {

// Null where there is no driver, or one of real GPUs.
FakeGpu* GpuOf(const std::string& driver) {
  void* library = dlopen(driver.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  using Entry = FakeGpu* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, "penstock_fake_driver_gpu"));
  return entry == nullptr ? nullptr : entry();
}

}  // namespace

Result<RowDevice> OpenRowDevice(RowApi which, const std::string& driver) {
  if (which == RowApi::kDriver) {
    FakeGpu* gpu = GpuOf(driver);
    if (gpu == nullptr) return Unavailable("there is no driver of fake GPUs");
    PENSTOCK_ASSIGN_OR_RETURN(auto api, gpu::OpenDriverApi(driver));
    return RowDevice{std::move(api), LaunchOn(*gpu)};
  }
  auto gpu = std::make_unique<FakeGpu>(FakeGpuOptions{.devices = 2});
  RowLaunch launch = LaunchOn(*gpu);
  return RowDevice{std::move(gpu), std::move(launch)};
}

}  // namespace penstock
