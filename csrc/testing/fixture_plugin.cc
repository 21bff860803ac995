// The plug-in's entry: the fixture backend for servers that tests start. Option "fifo": a FIFO that a
// writer must open and close before it starts.
//
// A model with the parameter `plan` is a plan (testing/fake_plan.h) on one or both of two fake GPUs:
// its file begins with kFakePlanBytes. They are those of the driver that is made for tests
// (testing/fake_driver.cc), where the server finds it: clients' memory is there, too.

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "backends/tensorrt/plan_backend.h"
#include "gpu/driver_api.h"
#include "testing/fake_gpu.h"
#include "testing/fake_plan.h"
#include "testing/fixture_backend.h"

namespace penstock {
namespace {

// Null where there is no driver, or one of real GPUs.
FakeGpu* GpuOfDriver() {
  void* library = dlopen(gpu::kDriverLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return nullptr;
  using Entry = FakeGpu* (*)();
  const auto entry = reinterpret_cast<Entry>(dlsym(library, "penstock_fake_driver_gpu"));
  return entry == nullptr ? nullptr : entry();
}

std::unique_ptr<Backend> MakePlanBackend() {
  FakeGpu* gpu = GpuOfDriver();
  std::unique_ptr<gpu::Api> api;
  if (gpu != nullptr) {
    auto driver = gpu::OpenDriverApi();
    if (driver.ok()) api = *std::move(driver);
  }
  if (api == nullptr) {
    auto own = std::make_unique<FakeGpu>(FakeGpuOptions{.devices = 2});
    gpu = own.get();
    api = std::move(own);
  }
  auto runtime = std::make_unique<FakePlanRuntime>(*gpu, FakePlanOptions{});
  return std::make_unique<tensorrt::PlanBackend>(
      tensorrt::PlanBackendParts{std::move(api), std::move(runtime)}, Clock::System(),
      /*allows_host_code=*/false);
}

// Threading: as Backend.
class FixturePlugin final : public Backend {
 public:
  std::string_view description() const override { return models_->description(); }
  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options) override {
    return options.parameters.contains("plan") ? plans_->Load(options) : models_->Load(options);
  }

 private:
  const std::unique_ptr<Backend> models_ = MakeFixtureBackend();
  const std::unique_ptr<Backend> plans_ = MakePlanBackend();
};

}  // namespace
}  // namespace penstock

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_backend_v5(const penstock::BackendOptions& options) {
  if (const auto fifo = options.find("fifo"); fifo != options.end()) {
    const int fd = open(fifo->second.c_str(), O_RDONLY | O_CLOEXEC);
    char byte;
    while (read(fd, &byte, 1) > 0) {
    }
    close(fd);
  }
  return std::unique_ptr<penstock::Backend>(std::make_unique<penstock::FixturePlugin>());
}
