#include "backends/onnxruntime/gpu_models.h"

#include <string>
#include <utility>

#include "backends/onnxruntime/model_file.h"
#include "backends/onnxruntime/session_plan.h"
#include "backends/tensorrt/plan_model.h"
#include "backends/tensorrt/plan_settings.h"
#include "base/strcat.h"

namespace penstock::ort {
namespace {

// Each lane is a session, with weights of its own; two slots already overlap copies with computing.
constexpr size_t kLanes = 1;

std::string EngineOf(const GpuSettings& settings) {
  std::string names;
  for (const ProviderSettings& each : settings.providers) {
    names += StrCat(names.empty() ? "" : ", ", ProviderName(each.provider));
  }
  return names;
}

// The CUDA provider's convolutions keep a plan of cuDNN's for one shape, the last. TensorRT's
// provider has its own for all shapes of its profile.
bool RowChangesCost(const GpuSettings& settings) {
  return settings.shares_batches && settings.providers.front().provider == Provider::kCuda;
}

}  // namespace

Result<std::unique_ptr<BackendModel>> GpuModels::Load(const LoadOptions& options,
                                                      const GpuSettings& settings,
                                                      const MakeOpener& make_opener) {
  const std::string label = ModelLabel(options);
  const auto plan_settings =
      tensorrt::ReadPlanSettings("onnxruntime", options.parameters, {.lanes = kLanes});
  if (!plan_settings.ok()) {
    return Status(plan_settings.status().code(),
                  StrCat(label, ": ", plan_settings.status().message()));
  }
  const SessionPlanOptions plan{label, EngineOf(settings), settings.ranges,
                                RowChangesCost(settings)};
  return tensorrt::PlanModel::Load(
      devices_, label, *plan_settings,
      [&](const tensorrt::DeviceTable::Found& found) -> Result<std::unique_ptr<tensorrt::Plan>> {
        PENSTOCK_ASSIGN_OR_RETURN(auto opener, make_opener(found, plan_settings->lanes));
        return SessionPlan::Create(found, std::move(opener), plan);
      });
}

}  // namespace penstock::ort
