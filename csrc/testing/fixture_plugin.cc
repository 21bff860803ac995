// The plug-in's entry: the fixture backend for servers that tests start. Option "fifo": a FIFO that a
// writer must open and close before it starts.
//
// A model with the parameter `plan` is a plan (testing/fake_plan.h), whose file begins with
// kFakePlanBytes, on one or both of two fake GPUs. They are those of the driver that is made for tests
// (testing/fake_driver.cc), where the server finds it: clients' memory is there, too. Linked with
// row_device_cuda.cc it is on the machine's GPUs, computed by a kernel of ours. Option "api": how
// they are called, "runtime" or "driver" (row_device.h), the first of which fake GPUs that clients
// reach have not.

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "backends/tensorrt/plan_backend.h"
#include "testing/fake_plan.h"
#include "testing/fixture_backend.h"
#include "testing/row_device.h"

namespace penstock {
namespace {

// Of the option "api", or of what there is.
Result<RowDevice> OpenDevice(const BackendOptions& options) {
  const auto api = options.find("api");
  if (api != options.end()) {
    return OpenRowDevice(api->second == "driver" ? RowApi::kDriver : RowApi::kRuntime);
  }
  auto by_driver = OpenRowDevice(RowApi::kDriver);
  return by_driver.ok() ? std::move(by_driver) : OpenRowDevice(RowApi::kRuntime);
}

Result<std::unique_ptr<Backend>> MakePlanBackend(const BackendOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(RowDevice device, OpenDevice(options));
  auto runtime = std::make_unique<FakePlanRuntime>(std::move(device.launch), FakePlanOptions{});
  return std::unique_ptr<Backend>(std::make_unique<tensorrt::PlanBackend>(
      tensorrt::PlanBackendParts{std::move(device.api), std::move(runtime)}, Clock::System(),
      /*allows_host_code=*/false));
}

// Threading: as Backend.
class FixturePlugin final : public Backend {
 public:
  explicit FixturePlugin(const BackendOptions& options) : plans_(MakePlanBackend(options)) {}

  std::string_view description() const override { return models_->description(); }
  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options) override {
    if (!options.parameters.contains("plan")) return models_->Load(options);
    return plans_.ok() ? (*plans_)->Load(options) : plans_.status();
  }
  std::shared_ptr<void> PinHostMemory(std::span<uint8_t> memory) override {
    return plans_.ok() ? (*plans_)->PinHostMemory(memory) : nullptr;
  }

 private:
  const std::unique_ptr<Backend> models_ = MakeFixtureBackend();
  const Result<std::unique_ptr<Backend>> plans_;
};

}  // namespace
}  // namespace penstock

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_backend_v6(const penstock::BackendOptions& options) {
  if (const auto fifo = options.find("fifo"); fifo != options.end()) {
    const int fd = open(fifo->second.c_str(), O_RDONLY | O_CLOEXEC);
    char byte;
    while (read(fd, &byte, 1) > 0) {
    }
    close(fd);
  }
  return std::unique_ptr<penstock::Backend>(std::make_unique<penstock::FixturePlugin>(options));
}
