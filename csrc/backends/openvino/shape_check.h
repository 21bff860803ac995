// ShapeCheck: whether a model can compute inputs of given shapes.
//
// Asked, because the engine does not always see it: given FP32 [2,4] where an open dimension has
// to be 3 to fit the weights, its CPU device adds the wrong elements on one thread, and multiplies
// beyond the tensor's end on any number. The engine's own inference of shapes does see it.

#pragma once

#include <cstdint>
#include <memory>
#include <openvino/core/model.hpp>
#include <set>
#include <span>
#include <vector>

#include "backends/backend.h"
#include "base/mutex.h"

namespace penstock::openvino {

// The shapes of a batch's inputs, one after the other, each after its rank.
using ShapeKey = std::vector<int64_t>;

// Threading: thread-safe.
// Ownership: owns a copy of the graph without its large weights.
// Cost: a walk over the graph for shapes not seen before; kMaxKnown of them are remembered.
class ShapeCheck {
 public:
  static constexpr size_t kMaxKnown = 4096;

  explicit ShapeCheck(const ov::Model& model);

  // False for a model without an open dimension: nothing needs to be asked.
  bool is_needed() const { return graph_ != nullptr; }

  // Returns where the shapes fit, and throws the engine's exception where they do not. `inputs`
  // are all of the model's; `key` is theirs.
  void Check(std::span<const BatchInput> inputs, const ShapeKey& key) EXCLUDES(mu_);

 private:
  Mutex mu_;
  // Guarded by mu_; the pointer itself is constant after construction.
  std::shared_ptr<ov::Model> graph_;
  std::set<ShapeKey> known_ GUARDED_BY(mu_);
};

}  // namespace penstock::openvino
