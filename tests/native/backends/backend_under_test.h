// What the conformance suite needs of a backend: how to open it and how to make the models it runs.

#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "backends/backend.h"

namespace penstock {

// A directory that goes with its test.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string Path(const std::string& name) const { return (path_ / name).string(); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

// One row of the suite. Each writer makes a model file at a path.
struct BackendUnderTest {
  std::string name;
  std::function<Result<Backend*>()> open;
  std::string model_filename;
  // INPUT0 -> OUTPUT0 of `dtype` and `dims` (-1 = any; the first is the batch).
  std::function<void(const std::string& path, DataType dtype, const Shape& dims)> write_identity;
  // INPUT0, INPUT1 -> OUTPUT0 sum, OUTPUT1 difference; INT32 [-1,16].
  std::function<void(const std::string& path)> write_simple;
  // Of FP32 [-1,-1], INPUT0 -> OUTPUT0 of its shape; refuses some batches: `bad_shape` is one that fails while it
  // runs.
  std::function<void(const std::string& path)> write_picky;
  Shape bad_shape;
  Shape good_shape;

  friend void PrintTo(const BackendUnderTest& backend, std::ostream* out) { *out << backend.name; }
};

// Every backend this build has; one whose engine is not installed is listed too and fails to open.
const std::vector<BackendUnderTest>& BackendsUnderTest();

// A test's way to a loaded model.
LoadOptions MakeLoadOptions(const TempDir& directory, const BackendUnderTest& backend);

// Bytes of `values` in memory order.
template <typename T>
std::vector<uint8_t> BytesOf(const std::vector<T>& values) {
  const auto* first = reinterpret_cast<const uint8_t*>(values.data());
  return std::vector<uint8_t>(first, first + values.size() * sizeof(T));
}
// Strings in the protocol's layout.
std::vector<uint8_t> WireBytes(const std::vector<std::string>& texts);

// Runs a batch; `tensors` are the inputs in the signature's order.
Result<std::vector<BatchOutput>> RunBatch(BackendInstance& instance,
                                          const std::vector<TensorView>& tensors,
                                          const std::vector<size_t>& wanted);

}  // namespace penstock
