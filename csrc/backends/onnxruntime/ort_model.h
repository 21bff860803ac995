// OrtModel: a loaded ONNX model: one session that all its instances share.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/onnxruntime/model_file.h"
#include "backends/onnxruntime/ort_library.h"
#include "backends/onnxruntime/settings.h"
#include "base/status.h"

namespace penstock::ort {

// Where a dimension of an output comes from, known before the model runs.
struct OutputDim {
  enum class Source { kFixed, kInput, kUnknown };
  Source source = Source::kUnknown;
  int64_t size = 0;  // kFixed
  size_t input = 0;  // kInput: this input's
  size_t axis = 0;   //         dimension
};

// What an instance needs for each output, in the signature's order.
struct OutputPlan {
  std::vector<OutputDim> dims;
  // The shape follows from the inputs' shapes, so the output can be written into memory of ours.
  bool is_predictable = false;
};

// Threading: thread-safe, immutable after Load: the engine runs one session on many threads at
// once. Ownership: the session is shared with outputs that lie in the engine's memory, which may
// outlive the model.
class OrtModel : public BackendModel {
 public:
  static Result<std::unique_ptr<BackendModel>> Load(const OrtLibrary& library,
                                                    const LoadOptions& options);

  const ModelSignature& signature() const override { return signature_; }
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions& options) override;

  const OrtLibrary& library() const { return library_; }
  const std::string& label() const { return label_; }
  const std::shared_ptr<Session>& session() const { return session_; }
  const RunOptions* run_options() const { return run_options_.get(); }
  const std::vector<OutputPlan>& output_plans() const { return output_plans_; }

 private:
  OrtModel(const OrtLibrary& library, std::string label);

  Status CreateSession(const LoadOptions& options, const Settings& settings,
                       const ModelFileFacts& facts);
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
