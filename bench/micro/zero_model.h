// A model that costs nothing, of digits' shapes, and a request to it: what remains is Penstock.

#pragma once

#include <cstring>
#include <memory>
#include <protozero/pbf_writer.hpp>
#include <string>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "memory/host_pool.h"

namespace penstock {

inline constexpr int64_t kFeatures = 64;
inline constexpr int64_t kClasses = 10;

// Gives zeros for every output, of the right size.
class ZeroInstance final : public BackendInstance {
 public:
  explicit ZeroInstance(bool runs_on_any_thread) : runs_on_any_thread_(runs_on_any_thread) {}

  bool runs_on_any_thread() const override { return runs_on_any_thread_; }
  Status Execute(std::span<const BatchInput> inputs, std::span<const size_t> wanted,
                 std::vector<BatchOutput>* outputs) override {
    const int64_t rows = inputs[0].tensor.shape[0];
    for (const size_t index : wanted) {
      Buffer data = HostPool::Shared().Allocate(rows * kClasses * sizeof(float));
      std::memset(data.data(), 0, data.size());
      outputs->push_back({index, DataType::kFp32, Shape{rows, kClasses}, std::move(data)});
    }
    return Status::Ok();
  }

 private:
  const bool runs_on_any_thread_;
};

class ZeroModel final : public BackendModel {
 public:
  explicit ZeroModel(bool runs_on_any_thread) : runs_on_any_thread_(runs_on_any_thread) {}

  const ModelSignature& signature() const override { return signature_; }
  Result<std::unique_ptr<BackendInstance>> CreateInstance(const InstanceOptions&) override {
    return std::unique_ptr<BackendInstance>(std::make_unique<ZeroInstance>(runs_on_any_thread_));
  }

 private:
  const bool runs_on_any_thread_;
  const ModelSignature signature_{{{"X", DataType::kFp32, Shape{-1, kFeatures}}},
                                  {{"probabilities", DataType::kFp32, Shape{-1, kClasses}}}};
};

// A ModelInferRequest of one row.
inline std::string RequestBytes() {
  std::string message;
  std::string input;
  const std::vector<float> row(kFeatures, 7.0F);
  {
    protozero::pbf_writer writer(input);
    writer.add_string(1, "X");
    writer.add_string(2, "FP32");
    const std::vector<int64_t> shape = {1, kFeatures};
    writer.add_packed_int64(3, shape.begin(), shape.end());
  }
  protozero::pbf_writer writer(message);
  writer.add_string(1, "digits");
  writer.add_message(5, input);
  writer.add_bytes(7, reinterpret_cast<const char*>(row.data()), row.size() * sizeof(float));
  return message;
}

}  // namespace penstock
