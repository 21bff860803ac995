// Call: one request under way, and the Python objects that must live as long as it does.

#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "base/status.h"
#include "engine/engine.h"

namespace penstock::bindings {

// What a request carries across the core: the submitter's tag, and the message that its views
// borrow from. Made and dropped with the GIL held (on the event loop's thread).
struct Tag {
  pybind11::object tag;
  pybind11::bytes message;
  Status failure = Status::Ok();  // why responses were dropped: all are, from that one on
};

// Threading: under the GIL.
struct PyCall {
  std::shared_ptr<CompletionQueue> completions;  // cancelling pushes there
  std::shared_ptr<Engine> engine;
  RequestRef request;
};

}  // namespace penstock::bindings
