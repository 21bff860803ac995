// PyAccess: the engine's door, as Python sees it.

#pragma once

#include <cstdint>
#include <memory>

#include "engine/engine.h"

namespace penstock::bindings {

// Threading: under the GIL; nothing here waits.
struct PyAccess {
  std::shared_ptr<Engine> engine;

  AccessControl& access() const { return engine->admission().access(); }
  // A moment on the engine's clock. Throws ValueError for what is no number.
  int64_t After(double seconds) const;
};

}  // namespace penstock::bindings
