#include "backends/onnxruntime/ort_model.h"

#include <utility>

#include "backends/onnxruntime/ort_instance.h"
#include "backends/onnxruntime/session_maker.h"
#include "backends/onnxruntime/signature.h"

namespace penstock::ort {

OrtModel::OrtModel(const OrtLibrary& library, std::string label)
    : library_(library),
      label_(std::move(label)),
      run_options_(nullptr, library.api().ReleaseRunOptions) {}

Result<std::unique_ptr<BackendModel>> OrtModel::Load(const OrtLibrary& library,
                                                     const LoadOptions& options,
                                                     const Settings& settings) {
  PENSTOCK_ASSIGN_OR_RETURN(const ModelFileFacts facts, InspectModelFile(options));
  std::unique_ptr<OrtModel> model(new OrtModel(library, ModelLabel(options)));
  PENSTOCK_ASSIGN_OR_RETURN(model->session_,
                            MakeSession(library, options, settings, facts, nullptr));
  PENSTOCK_RETURN_IF_ERROR(model->CreateRunOptions(settings));
  PENSTOCK_RETURN_IF_ERROR(model->ReadSignature(facts));
  return std::unique_ptr<BackendModel>(std::move(model));
}

Status OrtModel::CreateRunOptions(const Settings& settings) {
  const Api& api = library_.api();
  PENSTOCK_ASSIGN_OR_RETURN(run_options_, MakeRunOptions(library_, api, RunEnd::kOver, label_));
  if (settings.arena_shrinkage.empty()) return Status::Ok();
  return library_.ToStatus(
      api.AddRunConfigEntry(run_options_.get(), "memory.enable_memory_arena_shrinkage",
                            settings.arena_shrinkage.c_str()),
      label_);
}

Status OrtModel::ReadSignature(const ModelFileFacts& facts) {
  PENSTOCK_ASSIGN_OR_RETURN(SessionSignature read,
                            ReadSessionSignature(library_, session_.get(), facts, label_));
  signature_ = std::move(read.signature);
  output_plans_ = std::move(read.output_plans);
  return Status::Ok();
}

Result<std::unique_ptr<BackendInstance>> OrtModel::CreateInstance(const InstanceOptions& options) {
  return std::unique_ptr<BackendInstance>(std::make_unique<OrtInstance>(*this, options.name));
}

}  // namespace penstock::ort
