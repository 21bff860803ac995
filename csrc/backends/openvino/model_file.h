// What must be known of a model's files before the engine is given their path: of which format they
// are, and that they lie in the model's directory.

#pragma once

#include <string>
#include <string_view>

#include "backends/backend.h"
#include "base/status.h"

namespace penstock::openvino {

// A format that the backend reads, and the only one of the engine's frontends that reads it.
struct Format {
  std::string_view name;      // for messages
  std::string_view frontend;  // as the engine calls it
};

// The format is told by the file's name alone: no other frontend ever sees it.
//
//   *.xml                      OpenVINO IR, weights in the *.bin beside it
//   *.onnx                     ONNX
//   *.pb                       TensorFlow, frozen
//   a directory                TensorFlow SavedModel (holds saved_model.pb)
//   *.tflite                   TensorFlow Lite
//   *.pdmodel                  Paddle, weights in the *.pdiparams beside it
//
// NOT_FOUND where the file is missing; INVALID_ARGUMENT where it is of no such kind, is empty, or a
// file that belongs to it (weights, variables, external data) leads out of the model's directory by
// a symbolic link. Blocking: reads an ONNX file once.
Result<Format> InspectFiles(const LoadOptions& options);

}  // namespace penstock::openvino
