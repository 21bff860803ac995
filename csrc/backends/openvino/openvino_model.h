// OpenVinoModel: a loaded model: one compiled graph that all its instances share.

#pragma once

#include <cstddef>
#include <memory>
#include <openvino/frontend/manager.hpp>
#include <openvino/runtime/compiled_model.hpp>
#include <openvino/runtime/core.hpp>
#include <string>

#include "backends/backend.h"
#include "backends/openvino/settings.h"
#include "backends/openvino/shape_check.h"
#include "backends/openvino/signature.h"
#include "base/status.h"

namespace penstock::openvino {

// Threading: thread-safe, immutable after Load: each instance has a request of its own.
class OpenVinoModel : public BackendModel {
 public:
  static Result<std::unique_ptr<BackendModel>> Load(ov::Core& core,
                                                    ov::frontend::FrontEndManager& frontends,
                                                    const LoadOptions& options);

  const ModelSignature& signature() const override { return graph_.signature; }
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions& options) override;

  const std::string& label() const { return label_; }
  const GraphSignature& graph() const { return graph_; }
  ShapeCheck& shape_check() const { return *shape_check_; }
  // Whether a batch may run on its caller's thread: the engine has no streams, which are threads of
  // its own, or more than one thread for each. With one it swallows there what a node throws.
  bool infers_on_caller() const { return infers_on_caller_; }
  // As PaddedRows takes it; 0 where batches run at the size they have.
  size_t spare_row_bytes() const { return spare_row_bytes_; }

 private:
  OpenVinoModel(std::string label, GraphSignature graph)
      : label_(std::move(label)), graph_(std::move(graph)) {}

  Status Compile(ov::Core& core, const std::shared_ptr<ov::Model>& model, const Settings& settings,
                 const LoadOptions& options);

  // Constant after Load.
  const std::string label_;
  const GraphSignature graph_;
  std::unique_ptr<ShapeCheck> shape_check_;  // synchronised by itself
  ov::CompiledModel compiled_;
  bool infers_on_caller_ = false;
  size_t spare_row_bytes_ = 0;
};

}  // namespace penstock::openvino
