// A model in fake sessions on the fake GPU, behind the backend's interface.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "backends/onnxruntime/gpu_models.h"
#include "backends/onnxruntime/gpu_settings.h"
#include "backends/tensorrt/plan_model.h"
#include "base/clock.h"
#include "testing/fake_gpu.h"
#include "testing/fake_session.h"
#include "testing/quiet_log.h"
#include "testing/row_batch.h"

namespace penstock::ort {

struct FakeModels {
  explicit FakeModels(const FakeSessionOptions& session = {},
                      const FakeGpuOptions& gpu_options = {})
      : session(session) {
    auto api = std::make_unique<FakeGpu>(gpu_options);
    gpu = api.get();
    models = std::make_unique<GpuModels>(
        std::move(api), session.clock != nullptr ? *session.clock : Clock::System());
  }

  // With `device_kind` and `max_batch_size` 8 where they are not given.
  Result<std::unique_ptr<BackendModel>> Load(std::map<std::string, std::string> parameters = {}) {
    parameters.try_emplace("device_kind", "gpu");
    parameters.try_emplace("max_batch_size", "8");
    auto settings = ReadGpuSettings(parameters);
    if (!settings.ok()) return settings.status();
    LoadOptions options;
    options.model_name = "m";
    options.version = 3;
    options.parameters = std::move(parameters);
    return models->Load(options, settings->value(),
                        [this](const tensorrt::DeviceTable::Found&, size_t lanes) {
                          told_lanes = lanes;
                          return Result<std::unique_ptr<SessionOpener>>(
                              std::make_unique<FakeSessionOpener>(*gpu, log, session));
                        });
  }

  const FakeSessionOptions session;
  FakeSessionLog log;
  size_t told_lanes = 0;  // before sessions were opened
  FakeGpu* gpu;
  std::unique_ptr<GpuModels> models;
};

}  // namespace penstock::ort
