#include "backends/openvino/read_model.h"

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "backends/openvino/engine_error.h"
#include "backends/openvino/unchecked_operators.h"
#include "base/strcat.h"

namespace penstock::openvino {
namespace {

std::string CannotBeRead(const Format& format, const LoadOptions& options) {
  return StrCat(ModelLabel(options), " cannot be read as ", format.name, " by OpenVINO ",
                PENSTOCK_OPENVINO_VERSION);
}

// The engine computes 64-bit integers in 32 bits, and takes the copying of a tensor for computing.
// Without such operators what only passes through a model passes unharmed.
void DropIdentities(const ov::Model& model) {
  for (const auto& node : model.get_ordered_ops()) {
    if (std::string_view(node->get_type_info().name) != "Identity") continue;
    node->output(0).replace(node->input_value(0));
  }
}

Result<std::shared_ptr<ov::Model>> Convert(ov::frontend::FrontEnd& frontend, const Format& format,
                                           const LoadOptions& options) {
  // Not mapped into memory, or the variables of a SavedModel are: cut short, they end the process.
  const bool maps_files = false;
  const ov::frontend::InputModel::Ptr input = frontend.load(options.path, maps_files);
  if (input == nullptr) {
    return InvalidArgument(CannotBeRead(format, options) + ": the file is of another format");
  }
  const std::shared_ptr<ov::Model> model = frontend.convert(input);
  DropIdentities(*model);
  PENSTOCK_RETURN_IF_ERROR(RefuseUncheckedOperators(*model, options));
  return model;
}

}  // namespace

Result<std::shared_ptr<ov::Model>> ReadModel(ov::frontend::FrontEndManager& frontends,
                                             const Format& format, const LoadOptions& options) {
  try {
    const auto frontend = frontends.load_by_framework(std::string(format.frontend));
    if (frontend == nullptr) {
      return FailedPrecondition(CannotBeRead(format, options) + ": it has no frontend for it");
    }
    return Convert(*frontend, format, options);
  } catch (const std::exception& error) {
    return LoadError(CannotBeRead(format, options), error, options);
  }
}

Status ReshapeInputs(const std::map<std::string, Shape>& shapes, const ModelSignature& names,
                     const LoadOptions& options, ov::Model* model) {
  std::map<size_t, ov::PartialShape> by_index;
  for (const auto& entry : shapes) {
    const auto& [name, shape] = entry;
    const auto input =
        std::find_if(names.inputs.begin(), names.inputs.end(),
                     [&entry](const TensorSpec& each) { return each.name == entry.first; });
    if (input == names.inputs.end()) {
      return InvalidArgument(StrCat(ModelLabel(options), ": input '", name,
                                    "', which is to be reshaped, is not in the model file"));
    }
    by_index[input - names.inputs.begin()] =
        ov::PartialShape(std::vector<ov::Dimension>(shape.begin(), shape.end()));
  }
  try {
    model->reshape(by_index);
  } catch (const std::exception& error) {
    return LoadError(ModelLabel(options) + " cannot be reshaped to its configuration", error,
                     options);
  }
  return Status::Ok();
}

}  // namespace penstock::openvino
