// The plug-in's entry and its Backend.

#include <exception>
#include <memory>
#include <new>
#include <string>

#include "backends/backend.h"
#include "backends/python/python_model.h"
#include "backends/python/settings.h"
#include "base/strcat.h"

namespace penstock::python {
namespace {

// Threading: thread-safe.
class PythonBackend : public Backend {
 public:
  explicit PythonBackend(BackendSettings settings) : settings_(std::move(settings)) {}

  std::string_view description() const override { return "Python workers, protocol 1"; }
  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options) override {
    const std::string label = StrCat("model '", options.model_name, "' version ", options.version);
    try {
      return PythonModel::Load(settings_, options);
    } catch (const std::bad_alloc&) {
      return ResourceExhausted(label + " cannot be loaded: out of memory");
    } catch (const std::exception& error) {
      return Internal(StrCat(label, " cannot be loaded: ", error.what()));
    }
  }

 private:
  const BackendSettings settings_;
};

}  // namespace
}  // namespace penstock::python

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_backend_v6(const penstock::BackendOptions& options) {
  PENSTOCK_ASSIGN_OR_RETURN(auto settings, penstock::python::ReadBackendSettings(options));
  return std::unique_ptr<penstock::Backend>(
      std::make_unique<penstock::python::PythonBackend>(std::move(settings)));
}
