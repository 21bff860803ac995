// PlanLayout: how a plan's tensors and profiles are rows, batch sizes and buckets. Pure.

#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "backends/tensorrt/plan.h"
#include "base/status.h"

namespace penstock::tensorrt {

// Rows are the first dimension where the model batches and every input and output has it open; a plan
// without is run with one row, which is its tensors as they are.
//
// Threading: immutable.
class PlanLayout {
 public:
  // `label` starts messages: "model 'bert' version 1". `batches`: false where the configuration says
  // that the model does not, so that an open first dimension is data. UNIMPLEMENTED for tensors that cannot be
  // served (their type or place, shapes that depend on values), INVALID_ARGUMENT for profiles that
  // do not fit together.
  static Result<PlanLayout> Create(const std::string& label, const std::vector<PlanTensor>& tensors,
                                   size_t profiles, bool batches);

  // Its most_rows: what the greatest profile takes in the first dimension where the model batches and
  // every input has it open, also where an output has not, which need not be served.
  const ModelSignature& signature() const { return signature_; }
  // In Plan::tensors(), of each of the signature's.
  const std::vector<size_t>& inputs() const { return inputs_; }
  const std::vector<size_t>& outputs() const { return outputs_; }

  bool has_rows() const { return has_rows_; }
  // A dimension besides the rows is open: batches have shapes of their own.
  bool has_open_shapes() const { return has_open_shapes_; }
  uint32_t max_rows() const { return max_rows_; }
  // Every number of rows up to max_rows() has a profile.
  bool takes_any_rows() const { return takes_any_rows_; }
  // Batch sizes to have graphs for: powers of two, and what the profiles were made for, as far as
  // there are profiles for them. `preferred` in their place, where it is not empty: INVALID_ARGUMENT
  // where one of those has no profile.
  Result<std::vector<uint32_t>> Buckets(const std::vector<uint32_t>& preferred) const;

  // The profile that was made for the least rows of those that fit: it is tuned closest. nullopt:
  // none does. `shapes` in the order of inputs(), whole.
  std::optional<size_t> ProfileOf(std::span<const Shape> shapes) const;
  // For the greatest shapes of that many rows.
  std::optional<size_t> ProfileOfRows(uint32_t rows) const;

  // The inputs' shapes of a batch of fixed shapes, or the greatest of a profile. In the order of
  // inputs().
  std::vector<Shape> ShapesOf(uint32_t rows) const;
  std::vector<Shape> GreatestShapes(size_t profile) const;
  // INVALID_ARGUMENT naming the input that no profile fits, with what it takes.
  Status WhyNoProfile(std::span<const Shape> shapes) const;

 private:
  struct Rows {
    int64_t least = 1, greatest = 1, likely = 1;
  };

  explicit PlanLayout(std::string label) : label_(std::move(label)) {}

  Status AddTensors(const std::vector<PlanTensor>& tensors, bool batches);
  Status CheckTensor(const PlanTensor& tensor) const;
  Status CheckProfiles(size_t profiles) const;
  Status AddRows(size_t profiles);
  void AddMostRows(size_t profiles);
  bool Fits(size_t profile, std::span<const Shape> shapes) const;

  // Constant after Create.
  std::string label_;
  ModelSignature signature_;
  std::vector<size_t> inputs_, outputs_;
  std::vector<std::vector<ProfileRange>> ranges_;  // by input, by profile
  std::vector<Rows> rows_;                         // by profile
  bool has_rows_ = false, has_open_shapes_ = false, takes_any_rows_ = true;
  uint32_t max_rows_ = 1;
};

}  // namespace penstock::tensorrt
