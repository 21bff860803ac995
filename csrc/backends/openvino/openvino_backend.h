// OpenVinoBackend: the engine, started: its core and its frontends.

#pragma once

#include <memory>
#include <openvino/frontend/manager.hpp>
#include <openvino/runtime/core.hpp>
#include <string>
#include <string_view>

#include "backends/backend.h"
#include "base/status.h"

namespace penstock::openvino {

// Models run on the engine's CPU device. Nothing is cached on disk and nothing reported anywhere
// (the engine's telemetry is a Python package, which no code of Penstock imports).
//
// Threading: thread-safe: the engine's core and frontends lock what they share.
class OpenVinoBackend : public Backend {
 public:
  // FAILED_PRECONDITION where the library is not of the version that this was compiled with, or has
  // no CPU device.
  static Result<std::unique_ptr<Backend>> Start();

  std::string_view description() const override { return description_; }
  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options) override;

 private:
  OpenVinoBackend();

  // Own synchronisation.
  ov::Core core_;
  ov::frontend::FrontEndManager frontends_;
  // Constant after construction.
  const std::string description_;
};

}  // namespace penstock::openvino
