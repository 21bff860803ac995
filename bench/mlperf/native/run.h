// RunLoadGen: one test of LoadGen's against a target.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <variant>

#include "base/status.h"
#include "native/recorder.h"
#include "native/target.h"

namespace penstock::loadgen {

struct RunOptions {
  std::string scenario;  // as LoadGen's enumerators are called
  std::string mode;
  // LoadGen's TestSettings by the names of their fields.
  std::map<std::string, std::variant<uint64_t, double>> settings;
  std::string output;   // folder of LoadGen's logs
  std::string library;  // name of the query sample library
  size_t samples = 0;
  // The system's name: asked for whenever LoadGen wants to know.
  std::function<std::string()> name;
  bool is_network = false;  // a QueryDispatchLibrary, as LoadGen over the network wants it
};

// INVALID_ARGUMENT names a setting that LoadGen does not have. One test at a time in a process:
// LoadGen has globals.
// Blocking: until the test is over; a target that never answers keeps it for ever.
Status RunLoadGen(const RunOptions& options, Target* target, Recorder* recorder);

}  // namespace penstock::loadgen
