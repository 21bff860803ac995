#include "backends/openvino/read_model.h"

#include <string>
#include <string_view>

#include "backends/openvino/engine_error.h"
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
  const ov::frontend::InputModel::Ptr input = frontend.load(options.path);
  if (input == nullptr) {
    return InvalidArgument(CannotBeRead(format, options) + ": the file is of another format");
  }
  const std::shared_ptr<ov::Model> model = frontend.convert(input);
  DropIdentities(*model);
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

}  // namespace penstock::openvino
