#include "backends/openvino/engine_error.h"

#include <array>
#include <new>
#include <openvino/core/except.hpp>
#include <openvino/frontend/exception.hpp>
#include <system_error>

#include "backends/onnxruntime/model_file.h"
#include "base/strcat.h"

namespace penstock::openvino {
namespace {

constexpr size_t kMaxMessageBytes = 1000;  // an engine's message may hold a whole graph

// Lines that name a place in the engine's source code, or how to extend it, and nothing of the
// model.
bool IsNoise(std::string_view line) {
  for (std::string_view start : {"Exception from src/", "FrontEnd API failed with", "Summary:",
                                 "To facilitate the conversion of unsupported operations"}) {
    if (line.starts_with(start)) return true;
  }
  return line.starts_with("Check '") && line.find("' failed at ") != std::string_view::npos;
}

// The lines of `text` that say something, joined.
std::string Condense(std::string_view text) {
  std::string joined;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    while (!line.empty() && (line.back() == ' ' || line.back() == '\r')) line.remove_suffix(1);
    if (line.empty() || IsNoise(line)) continue;
    joined += StrCat(joined.empty() ? "" : "; ", line);
  }
  return joined;
}

// What a converter says of an operator that it does not have. Not every frontend throws a type of
// its own for it.
bool IsUnsupported(const std::exception& error) {
  if (dynamic_cast<const ov::frontend::OpConversionFailure*>(&error) != nullptr ||
      dynamic_cast<const ov::frontend::NotImplementedFailure*>(&error) != nullptr ||
      dynamic_cast<const ov::NotImplemented*>(&error) != nullptr) {
    return true;
  }
  constexpr std::array<std::string_view, 5> kPhrases = {
      "Unsupported operation", "unsupported opset", "doesn't contain the operation",
      "No conversion rule", "is not supported"};
  const std::string_view text = error.what();
  for (std::string_view phrase : kPhrases) {
    if (text.find(phrase) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

std::string ModelLabel(const LoadOptions& options) { return ort::ModelLabel(options); }

std::string EngineMessage(const std::exception& error, const LoadOptions* options) {
  std::string message = Condense(error.what());
  if (message.empty()) message = Condense(StrCat("the engine says ", error.what()));
  if (message.empty()) message = "the engine gives no reason";
  if (options != nullptr) message = ort::WithoutPaths(std::move(message), *options);
  if (message.size() > kMaxMessageBytes) {
    message.resize(kMaxMessageBytes);
    message += " ...";
  }
  return message;
}

Status LoadError(std::string_view what, const std::exception& error, const LoadOptions& options) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) {
    return ResourceExhausted(StrCat(what, ": out of memory"));
  }
  std::string message = StrCat(what, ": ", EngineMessage(error, &options));
  if (!IsUnsupported(error)) return InvalidArgument(std::move(message));
  return Unimplemented(message + " (libraries of custom operators are not supported)");
}

Status GuardStatus(std::string_view what, const std::function<Status()>& step) {
  try {
    return step();
  } catch (const std::bad_alloc&) {
    return ResourceExhausted(StrCat(what, ": out of memory"));
  } catch (const std::system_error& error) {  // its own text may hold a path
    return Internal(StrCat(what, ": ", error.code().message()));
  } catch (const std::exception& error) {
    return Internal(StrCat(what, ": ", EngineMessage(error, nullptr)));
  }
}

}  // namespace penstock::openvino
