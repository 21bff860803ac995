#include "backends/tensorrt/settings.h"

#include <cstdlib>
#include <sstream>

#include "base/strcat.h"

namespace penstock::tensorrt {

Result<SearchOptions> ReadSettings(const BackendOptions& options) {
  SearchOptions read;
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nothing of this process changes its environment
  if (const char* root = std::getenv("TensorRT_ROOT"); root != nullptr) read.root = root;
  for (const auto& [name, value] : options) {
    if (name == "library") {
      read.library = value;
    } else if (name == "search") {
      std::istringstream directories(value);
      for (std::string each; std::getline(directories, each, ':');) {
        if (!each.empty()) read.directories.push_back(each);
      }
    } else if (name == "host_code") {
      if (value != "0" && value != "1") {
        return InvalidArgument(StrCat(
            "option 'host_code' of the tensorrt backend: expected 0 or 1, got '", value, "'"));
      }
      read.allows_host_code = value == "1";
    } else {
      return InvalidArgument(StrCat("option '", name,
                                    "' is not known to the tensorrt backend; known are library, "
                                    "search, host_code"));
    }
  }
  return read;
}

}  // namespace penstock::tensorrt
