#include "testing/fixture_backend.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/strcat.h"
#include "testing/repeat_model.h"

namespace penstock {
namespace {

constexpr int64_t kFilePollNs = 2 * kNsPerMs;

using Keys = std::map<std::string, std::string>;

enum class Kind {
  kIdentity,
  kSimple,
  kFail,
  kThrow,
  kFailLoad,
  kWrongShape,
  kWrongBytes,
  kBlock,
  kRepeat,
  kSquare
};

const std::map<std::string, Kind>& Kinds() {
  static const auto& kinds = *new std::map<std::string, Kind>{{"identity", Kind::kIdentity},
                                                              {"simple", Kind::kSimple},
                                                              {"fail", Kind::kFail},
                                                              {"throw", Kind::kThrow},
                                                              {"fail_load", Kind::kFailLoad},
                                                              {"wrong_shape", Kind::kWrongShape},
                                                              {"wrong_bytes", Kind::kWrongBytes},
                                                              {"block_until_file", Kind::kBlock},
                                                              {"repeat_int32", Kind::kRepeat},
                                                              {"square_int32", Kind::kSquare}};
  return kinds;
}

// What a model does, from its keys.
struct Script {
  Kind kind = Kind::kIdentity;
  DataType dtype = DataType::kFp32;
  Shape dims{-1, -1};
  int64_t execute_delay_ms = 0;
  int64_t fail_rows = 0;
  int64_t timeout_ms = 60'000;
  std::string message = "deliberate failure";
  std::string file;
};

// Lasts until the deadline; there is nobody to wake it early.
void WaitUntil(int64_t deadline_ns) {
  Mutex mu;
  CondVar cv;
  MutexLock lock(mu);
  while (Clock::System().NowNs() < deadline_ns) Clock::System().WaitUntil(cv, mu, deadline_ns);
}

std::string Trim(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

Result<Keys> ReadKeys(const LoadOptions& options, const std::string& label) {
  std::ifstream file(options.path);
  if (!file) {
    if (options.parameters.contains("kind")) return options.parameters;
    return NotFound(label + ": the model file cannot be opened");
  }
  Keys keys = options.parameters;
  for (std::string line; std::getline(file, line);) {
    line = Trim(line.substr(0, line.find('#')));
    if (line.empty()) continue;
    const size_t equals = line.find('=');
    if (equals == std::string::npos) return InvalidArgument(label + ": the model file is damaged");
    keys.emplace(Trim(line.substr(0, equals)), Trim(line.substr(equals + 1)));
  }
  return keys;
}

bool ParseNumber(const std::string& text, int64_t* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

bool ParseDims(const std::string& text, Shape* dims) {
  dims->Clear();
  for (size_t at = 0; at <= text.size() && !text.empty();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    int64_t dim = 0;
    if (!ParseNumber(Trim(text.substr(at, comma - at)), &dim)) return false;
    dims->Append(dim);
    at = comma + 1;
  }
  return true;
}

bool SetKey(const std::string& key, const std::string& value, Script* script) {
  if (key == "kind") {
    const auto found = Kinds().find(value);
    if (found == Kinds().end()) return false;
    script->kind = found->second;
  } else if (key == "datatype") {
    script->dtype = ParseDataType(value);
    return script->dtype != DataType::kInvalid;
  } else if (key == "dims") {
    return ParseDims(value, &script->dims);
  } else if (key == "execute_delay_ms") {
    return ParseNumber(value, &script->execute_delay_ms);
  } else if (key == "fail_rows") {
    return ParseNumber(value, &script->fail_rows);
  } else if (key == "timeout_ms") {
    return ParseNumber(value, &script->timeout_ms);
  } else if (key == "message") {
    script->message = value;
  } else if (key == "file") {
    script->file = value;
  }
  return true;  // other parameters are the test's own
}

Result<Script> ReadScript(const LoadOptions& options, const std::string& label) {
  PENSTOCK_ASSIGN_OR_RETURN(const Keys keys, ReadKeys(options, label));
  Script script;
  for (const auto& [key, value] : keys) {
    if (!SetKey(key, value, &script)) {
      return InvalidArgument(StrCat(label, ": key '", key, "' has no such value: '", value, "'"));
    }
  }
  if (!keys.contains("kind")) return InvalidArgument(label + ": the model file has no 'kind'");
  return script;
}

ModelSignature MakeSignature(const Script& script) {
  if (script.kind == Kind::kSimple) {
    const Shape dims{-1, 16};
    return {{{"INPUT0", DataType::kInt32, dims}, {"INPUT1", DataType::kInt32, dims}},
            {{"OUTPUT0", DataType::kInt32, dims}, {"OUTPUT1", DataType::kInt32, dims}}};
  }
  return {{{"INPUT0", script.dtype, script.dims}}, {{"OUTPUT0", script.dtype, script.dims}}};
}

// Threading: confined to its instance's thread. Ownership: borrows the script, which is its
// model's.
class FixtureInstance : public BackendInstance {
 public:
  explicit FixtureInstance(const Script& script) : script_(script) {}

  Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                 std::vector<BatchOutput>* outputs) override {
    WaitUntil(Clock::System().NowNs() + script_.execute_delay_ms * kNsPerMs);
    if (script_.kind == Kind::kFail || IsRefused(inputs)) return Internal(script_.message);
    if (script_.kind == Kind::kThrow) throw std::runtime_error(script_.message);
    if (script_.kind == Kind::kBlock) PENSTOCK_RETURN_IF_ERROR(WaitForFile());
    for (const size_t index : wanted) {
      outputs->push_back(script_.kind == Kind::kSimple ? AddOrSubtract(inputs, index)
                                                       : Echo(inputs[0].tensor, index));
    }
    return Status::Ok();
  }

 private:
  bool IsRefused(std::span<const BatchInput> inputs) const {
    const Shape& shape = inputs[0].tensor.shape;
    return script_.fail_rows > 0 && !shape.empty() && shape[0] == script_.fail_rows;
  }

  Status WaitForFile() const {
    const int64_t give_up_ns = Clock::System().NowNs() + script_.timeout_ms * kNsPerMs;
    while (access(script_.file.c_str(), F_OK) != 0) {
      const int64_t now_ns = Clock::System().NowNs();
      if (now_ns >= give_up_ns)
        return Internal("block_until_file: the file did not appear in time");
      WaitUntil(std::min(now_ns + kFilePollNs, give_up_ns));
    }
    return Status::Ok();
  }

  BatchOutput Echo(const TensorView& input, size_t index) const {
    BatchOutput output{index, script_.dtype, input.shape, {}};
    size_t size = input.data.size();
    if (script_.kind == Kind::kWrongShape && !output.shape.empty()) ++output.shape[0];
    if (script_.kind == Kind::kWrongBytes && size > 0) --size;
    output.data = HostPool::Shared().Allocate(size);
    if (size > 0) std::memcpy(output.data.data(), input.data.data(), size);
    return output;
  }

  static BatchOutput AddOrSubtract(std::span<const BatchInput> inputs, size_t index) {
    const TensorView& a = inputs[0].index == 0 ? inputs[0].tensor : inputs[1].tensor;
    const TensorView& b = inputs[0].index == 0 ? inputs[1].tensor : inputs[0].tensor;
    BatchOutput output{index, DataType::kInt32, a.shape,
                       HostPool::Shared().Allocate(a.data.size())};
    for (size_t at = 0; at + sizeof(uint32_t) <= a.data.size(); at += sizeof(uint32_t)) {
      uint32_t x = 0;  // unsigned: overflow wraps, as in the other engines
      uint32_t y = 0;
      std::memcpy(&x, a.data.data() + at, sizeof(x));
      std::memcpy(&y, b.data.data() + at, sizeof(y));
      const uint32_t z = index == 0 ? x + y : x - y;
      std::memcpy(output.data.data() + at, &z, sizeof(z));
    }
    return output;
  }

  const Script& script_;
};

class FixtureModel : public BackendModel {
 public:
  explicit FixtureModel(Script script)
      : script_(std::move(script)), signature_(MakeSignature(script_)) {}

  const ModelSignature& signature() const override { return signature_; }
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions&) override {
    return std::unique_ptr<BackendInstance>(std::make_unique<FixtureInstance>(script_));
  }

 private:
  const Script script_;
  const ModelSignature signature_;
};

class FixtureBackend : public Backend {
 public:
  std::string_view description() const override { return "Fixture 1"; }

  Result<std::unique_ptr<BackendModel>> Load(const LoadOptions& options) override {
    const std::string label = StrCat("model '", options.model_name, "' version ", options.version);
    PENSTOCK_ASSIGN_OR_RETURN(Script script, ReadScript(options, label));
    if (script.kind == Kind::kFailLoad) return Internal(StrCat(label, ": ", script.message));
    if (script.kind == Kind::kRepeat) return MakeRepeatModel();
    if (script.kind == Kind::kSquare) return MakeSquareModel();
    return std::unique_ptr<BackendModel>(std::make_unique<FixtureModel>(std::move(script)));
  }
};

}  // namespace

std::unique_ptr<Backend> MakeFixtureBackend() { return std::make_unique<FixtureBackend>(); }

}  // namespace penstock
