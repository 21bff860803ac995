// OrtModel: a loaded ONNX model: one session that all its instances share.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/onnxruntime/model_file.h"
#include "backends/onnxruntime/ort_library.h"
#include "backends/onnxruntime/session_signature.h"
#include "backends/onnxruntime/settings.h"
#include "base/status.h"

namespace penstock::ort {

// Threading: thread-safe, immutable after Load: the engine runs one session on many threads at
// once. Ownership: the session is shared with outputs that lie in the engine's memory, which may
// outlive the model.
class OrtModel : public BackendModel {
 public:
  // `settings`: what the parameters say.
  static Result<std::unique_ptr<BackendModel>> Load(const OrtLibrary& library,
                                                    const LoadOptions& options,
                                                    const Settings& settings);

  const ModelSignature& signature() const override { return signature_; }
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions& options) override;

  const OrtLibrary& library() const { return library_; }
  const std::string& label() const { return label_; }
  const std::shared_ptr<Session>& session() const { return session_; }
  const RunOptions* run_options() const { return run_options_.get(); }
  const std::vector<OutputPlan>& output_plans() const { return output_plans_; }

 private:
  OrtModel(const OrtLibrary& library, std::string label);

  Status CreateRunOptions(const Settings& settings);
  Status ReadSignature(const ModelFileFacts& facts);

  // Constant after Load.
  const OrtLibrary& library_;
  const std::string label_;
  std::shared_ptr<Session> session_;
  Owned<RunOptions> run_options_;
  ModelSignature signature_;
  std::vector<OutputPlan> output_plans_;
};

}  // namespace penstock::ort
