// Batches through lanes (csrc/gpu), with an engine of our own kernel: images in, normalised out.

#include <atomic>
#include <memory>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/strcat.h"
#include "gpu/device.h"
#include "gpu/kernels/kernels.h"
#include "gpu_bench.h"

namespace penstock::gpu {
namespace {

constexpr uint32_t kMaxRows = 64;
constexpr size_t kBlockBytes = 2 * kMaxRows * kImageBytes;
constexpr int kRounds = 5;

class NormaliseEngine final : public DeviceEngine {
 public:
  class Context final : public DeviceContext {
   public:
    explicit Context(Bindings bindings) : bindings_(std::move(bindings)) {}
    Status Enqueue(Stream stream, uint32_t rows) override {
      const ImageBatch batch{.images = rows, .pixels = kImageBytes / 3, .channels = 3};
      const cudaError_t error = NormaliseImages(bindings_.outputs[0], Element::kFp16,
                                                static_cast<const uint8_t*>(bindings_.inputs[0]),
                                                batch, {}, reinterpret_cast<cudaStream_t>(stream));
      return error == cudaSuccess ? Status::Ok() : Internal(cudaGetErrorName(error));
    }

   private:
    const Bindings bindings_;
  };

  const std::string& name() const override { return name_; }
  const std::vector<DeviceTensor>& inputs() const override { return inputs_; }
  const std::vector<DeviceTensor>& outputs() const override { return outputs_; }
  uint32_t max_rows() const override { return kMaxRows; }
  bool takes_any_rows() const override { return true; }
  Result<std::unique_ptr<DeviceContext>> CreateContext(const Bindings& bindings, uint32_t,
                                                       Stream) override {
    return std::unique_ptr<DeviceContext>(new Context(bindings));
  }

 private:
  const std::string name_ = "normalise";
  const std::vector<DeviceTensor> inputs_ = {{"image", DataType::kUint8, kImageBytes}};
  const std::vector<DeviceTensor> outputs_ = {{"input", DataType::kFp16, 2 * kImageBytes}};
};

// Keeps every slot busy until `batches` batches are over.
void RunBatches(LaneGroup& group, uint32_t rows, int batches) {
  Mutex mu;
  CondVar ended;
  int left = batches;
  for (int i = 0; i < batches; ++i) {
    auto lease = group.Acquire(kNever);
    if (!lease.ok()) Check(Error::kUnknown, "Acquire");
    group.Submit(*std::move(lease), rows, [&](const Status& status, SlotLease) {
      if (!status.ok()) Check(Error::kUnknown, "a batch");
      MutexLock lock(mu);
      if (--left == 0) ended.NotifyAll();
    });
  }
  MutexLock lock(mu);
  while (left > 0) ended.Wait(mu);
}

void MeasureGroup(Device& device, size_t lanes, bool has_graphs) {
  NormaliseEngine engine;
  LaneGroupOptions options{.lanes = lanes, .measure_runs = 0};
  if (!has_graphs) options.graph_budget_bytes = 0;
  auto group = LaneGroup::Load(device.resources(), engine, options);
  if (!group.ok()) {
    std::fprintf(stderr, "gpu_bench: %s\n", group.status().ToString().c_str());
    std::exit(1);
  }
  for (const uint32_t rows : {1U, 8U, kMaxRows}) {
    const int batches = rows == kMaxRows ? 100 : 1000;
    const std::string what =
        StrCat(lanes, " lanes, ", has_graphs ? "graphs" : "no graphs", ", batches of ", rows);
    PrintRate("lanes: images in and out", what, "images/s", double{1} * rows * batches,
              Seconds(kRounds, [&] { RunBatches(**group, rows, batches); }));
  }
}

}  // namespace

void MeasureLanes(Api& api) {
  const DeviceOptions options{.pinned = {{.block_bytes = kBlockBytes, .blocks = 16}}};
  auto device = Device::Open(api, Clock::System(), options);
  if (!device.ok()) {
    std::fprintf(stderr, "gpu_bench: %s\n", device.status().ToString().c_str());
    std::exit(1);
  }
  for (const size_t lanes : {1, 2, 4}) {
    for (const bool has_graphs : {false, true}) MeasureGroup(**device, lanes, has_graphs);
  }
}

}  // namespace penstock::gpu
