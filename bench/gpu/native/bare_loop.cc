#include "bare_loop.h"

#include <cstring>
#include <utility>

#include "gpu_bench.h"

namespace penstock::gpu {

BareLoop::BareLoop(Api& api, DeviceEngine& engine, size_t ways)
    : api_(api), engine_(engine), ways_(ways) {
  for (Way& way : ways_) Allocate(way);
}

BareLoop::~BareLoop() {
  for (Way& way : ways_) {
    DropGraph(way);
    way.context = nullptr;
    for (const auto* list : {&way.device.inputs, &way.device.outputs}) {
      for (void* data : *list) CHECK_SUCCESS(api_.FreeAsync(data, way.stream));
    }
    CHECK_SUCCESS(api_.SynchronizeStream(way.stream));
    for (const auto* list : {&way.host.inputs, &way.host.outputs}) {
      for (void* data : *list) CHECK_SUCCESS(api_.FreePinned(data));
    }
    CHECK_SUCCESS(api_.DestroyStream(way.stream));
  }
}

void BareLoop::Allocate(Way& way) {
  CHECK_SUCCESS(api_.CreateStream(&way.stream));
  const auto add = [&](const DeviceTensor& tensor, std::vector<void*>& host,
                       std::vector<void*>& device) {
    const size_t bytes = tensor.row_bytes * engine_.max_rows();
    CHECK_SUCCESS(api_.AllocatePinned(bytes, &host.emplace_back()));
    CHECK_SUCCESS(api_.AllocateAsync(bytes, way.stream, &device.emplace_back()));
    std::memset(host.back(), 0, bytes);
  };
  for (const DeviceTensor& each : engine_.inputs()) add(each, way.host.inputs, way.device.inputs);
  for (const DeviceTensor& each : engine_.outputs()) {
    add(each, way.host.outputs, way.device.outputs);
  }
}

void BareLoop::DropGraph(Way& way) {
  if (way.graph != nullptr) CHECK_SUCCESS(api_.DestroyGraphExec(std::exchange(way.graph, nullptr)));
}

void BareLoop::Prepare(uint32_t rows, bool has_graph) {
  rows_ = rows;
  for (Way& way : ways_) {
    DropGraph(way);
    auto context = engine_.CreateContext(way.device, rows, way.stream);
    CHECK_SUCCESS(context.status());
    way.context = *std::move(context);
    Enqueue(way);  // engines prepare at their first run what cannot be captured
    CHECK_SUCCESS(api_.SynchronizeStream(way.stream));
    if (has_graph) Capture(way);
  }
}

void BareLoop::Capture(Way& way) {
  Graph graph = nullptr;
  CHECK_SUCCESS(api_.BeginCapture(way.stream));
  CHECK_SUCCESS(way.context->Enqueue(way.stream, rows_));
  CHECK_SUCCESS(api_.EndCapture(way.stream, &graph));
  CHECK_SUCCESS(api_.Instantiate(graph, &way.graph));
  CHECK_SUCCESS(api_.DestroyGraph(graph));
}

void BareLoop::Copy(const Way& way, CopyKind kind) {
  const bool is_in = kind == CopyKind::kHostToDevice;
  const auto& tensors = is_in ? engine_.inputs() : engine_.outputs();
  for (size_t i = 0; i < tensors.size(); ++i) {
    void* host = is_in ? way.host.inputs[i] : way.host.outputs[i];
    void* device = is_in ? way.device.inputs[i] : way.device.outputs[i];
    const gpu::Copy copy{is_in ? device : host, is_in ? host : device,
                         tensors[i].row_bytes * rows_};
    CHECK_SUCCESS(api_.CopyAsync(copy, kind, way.stream));
  }
}

void BareLoop::Enqueue(Way& way) {
  Copy(way, CopyKind::kHostToDevice);
  if (way.graph != nullptr) {
    CHECK_SUCCESS(api_.LaunchGraph(way.graph, way.stream));
  } else {
    CHECK_SUCCESS(way.context->Enqueue(way.stream, rows_));
  }
  Copy(way, CopyKind::kDeviceToHost);
}

void BareLoop::Run(int batches) {
  for (int i = 0; i < batches; ++i) {
    Way& way = ways_[static_cast<size_t>(i) % ways_.size()];
    CHECK_SUCCESS(api_.SynchronizeStream(way.stream));
    Enqueue(way);
  }
  for (const Way& way : ways_) CHECK_SUCCESS(api_.SynchronizeStream(way.stream));
}

}  // namespace penstock::gpu
