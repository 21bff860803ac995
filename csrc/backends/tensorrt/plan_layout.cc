#include "backends/tensorrt/plan_layout.h"

#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "base/strcat.h"
#include "gpu/bucket_table.h"

namespace penstock::tensorrt {
namespace {

// More rows than this are no batch: a slot has room for all of them.
constexpr int64_t kMaxRows = 1 << 20;

bool IsOpen(const Shape& dims, size_t from) {
  return std::any_of(dims.begin() + std::min(from, dims.rank()), dims.end(),
                     [](int64_t dim) { return dim < 0; });
}

bool IsWithin(const Shape& shape, const ProfileRange& range) {
  if (shape.rank() != range.least.rank()) return false;
  for (size_t i = 0; i < shape.rank(); ++i) {
    if (shape[i] < range.least[i] || shape[i] > range.greatest[i]) return false;
  }
  return true;
}

bool IsOrdered(const ProfileRange& range, const Shape& dims) {
  const bool has_rank = range.least.rank() == dims.rank() && range.likely.rank() == dims.rank() &&
                        range.greatest.rank() == dims.rank();
  for (size_t i = 0; has_rank && i < dims.rank(); ++i) {
    const bool rises = 0 <= range.least[i] && range.least[i] <= range.likely[i] &&
                       range.likely[i] <= range.greatest[i];
    if (!rises || (dims[i] >= 0 && range.least[i] != dims[i])) return false;
  }
  return has_rank;
}

}  // namespace

Result<PlanLayout> PlanLayout::Create(const std::string& label,
                                      const std::vector<PlanTensor>& tensors, size_t profiles,
                                      bool batches) {
  PlanLayout layout(label);
  PENSTOCK_RETURN_IF_ERROR(layout.AddTensors(tensors, batches));
  PENSTOCK_RETURN_IF_ERROR(layout.CheckProfiles(profiles));
  PENSTOCK_RETURN_IF_ERROR(layout.AddRows(profiles));
  if (batches) layout.AddMostRows(profiles);
  return layout;
}

Status PlanLayout::AddTensors(const std::vector<PlanTensor>& tensors, bool batches) {
  has_rows_ = batches && !tensors.empty();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const PlanTensor& tensor = tensors[i];
    PENSTOCK_RETURN_IF_ERROR(CheckTensor(tensor));
    has_rows_ = has_rows_ && !tensor.dims.empty() && tensor.dims[0] < 0;
    auto& specs = tensor.is_input ? signature_.inputs : signature_.outputs;
    specs.push_back({tensor.name, tensor.dtype, tensor.dims});
    (tensor.is_input ? inputs_ : outputs_).push_back(i);
    if (!tensor.is_input) continue;
    ranges_.push_back(tensor.profiles);
    if (!IsOpen(tensor.dims, 0)) {  // a fixed shape needs no profile: it has them all
      ranges_.back().assign(1, {tensor.dims, tensor.dims, tensor.dims});
    }
  }
  for (const PlanTensor& tensor : tensors) {
    has_open_shapes_ = has_open_shapes_ || IsOpen(tensor.dims, has_rows_ ? 1 : 0);
  }
  if (outputs_.empty()) return InvalidArgument(StrCat(label_, ": the plan has no output"));
  return Status::Ok();
}

Status PlanLayout::CheckTensor(const PlanTensor& tensor) const {
  const std::string what =
      StrCat(label_, ": ", tensor.is_input ? "input" : "output", " '", tensor.name, "' ");
  if (tensor.dtype == DataType::kInvalid || DataTypeSize(tensor.dtype) == 0) {
    return Unimplemented(
        StrCat(what, "is of TensorRT's type ", tensor.dtype_name, ", which requests cannot have"));
  }
  if (tensor.is_read_by_host) {
    return Unimplemented(
        StrCat(what, "is read by the host (a shape tensor), which is not supported"));
  }
  if (!tensor.aliased_input.empty()) {
    return Unimplemented(StrCat(what, "has to lie in the memory of input '", tensor.aliased_input,
                                "' (as KVCacheUpdate's does), which is not supported"));
  }
  if (!tensor.is_linear) {
    return Unimplemented(StrCat(what,
                                "has a layout of TensorRT's own, expected rows of elements "
                                "(TensorFormat::kLINEAR)"));
  }
  return Status::Ok();
}

Status PlanLayout::CheckProfiles(size_t profiles) const {
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const TensorSpec& spec = signature_.inputs[i];
    if (!IsOpen(spec.dims, 0)) continue;
    if (ranges_[i].size() != profiles) {
      return InvalidArgument(StrCat(label_, ": input '", spec.name, "' has ", ranges_[i].size(),
                                    " profiles, expected ", profiles));
    }
    for (size_t p = 0; p < profiles; ++p) {
      const ProfileRange& range = ranges_[i][p];
      if (IsOrdered(range, spec.dims)) continue;
      return InvalidArgument(StrCat(label_, ": profile ", p, " of input '", spec.name,
                                    "' does not fit its shape ", spec.dims.ToString(), ": got ",
                                    range.least.ToString(), " to ", range.greatest.ToString()));
    }
  }
  return Status::Ok();
}

Status PlanLayout::AddRows(size_t profiles) {
  int64_t most = 1;
  for (size_t p = 0; p < profiles; ++p) {
    Rows rows;
    if (has_rows_) rows.greatest = inputs_.empty() ? 1 : std::numeric_limits<int64_t>::max();
    for (size_t i = 0; i < inputs_.size() && has_rows_; ++i) {
      const ProfileRange& range = ranges_[i][p];
      rows.least = std::max({rows.least, range.least[0], int64_t{1}});
      rows.likely = std::max(rows.likely, range.likely[0]);
      rows.greatest = std::min(rows.greatest, range.greatest[0]);
    }
    if (rows.greatest < rows.least || rows.greatest > kMaxRows) {
      return InvalidArgument(StrCat(label_, ": profile ", p, " takes ", rows.least, " to ",
                                    rows.greatest, " rows, expected 1 to ", kMaxRows));
    }
    rows_.push_back(rows);
    most = std::max(most, rows.greatest);
  }
  max_rows_ = static_cast<uint32_t>(most);
  for (uint32_t n = 1; n <= max_rows_; ++n) {
    takes_any_rows_ = takes_any_rows_ && ProfileOfRows(n).has_value();
  }
  return Status::Ok();
}

void PlanLayout::AddMostRows(size_t profiles) {
  const auto& inputs = signature_.inputs;
  const bool are_open = std::all_of(inputs.begin(), inputs.end(), [](const TensorSpec& spec) {
    return !spec.dims.empty() && spec.dims[0] < 0;
  });
  if (inputs.empty() || !are_open) return;
  int64_t most = 0;
  for (size_t p = 0; p < profiles; ++p) {
    int64_t greatest = kMaxRows;
    for (const auto& ranges : ranges_) greatest = std::min(greatest, ranges[p].greatest[0]);
    most = std::max(most, greatest);
  }
  signature_.most_rows = static_cast<uint32_t>(most);
}

Result<std::vector<uint32_t>> PlanLayout::Buckets(const std::vector<uint32_t>& preferred) const {
  std::set<uint32_t> sizes(preferred.begin(), preferred.end());
  for (const uint32_t size : sizes) {
    if (size > 0 && size <= max_rows_ && ProfileOfRows(size)) continue;
    return InvalidArgument(
        StrCat(label_, ": no profile of the plan takes the ", size, " rows of a graph"));
  }
  if (preferred.empty()) {
    for (const uint32_t size : gpu::BucketTable::DefaultRows(max_rows_)) sizes.insert(size);
    for (const Rows& rows : rows_) {
      sizes.insert({static_cast<uint32_t>(rows.likely), static_cast<uint32_t>(rows.greatest)});
    }
  }
  sizes.insert(max_rows_);
  std::vector<uint32_t> buckets;
  for (const uint32_t size : sizes) {
    if (size <= max_rows_ && ProfileOfRows(size)) buckets.push_back(size);
  }
  return buckets;
}

bool PlanLayout::Fits(size_t profile, std::span<const Shape> shapes) const {
  for (size_t i = 0; i < shapes.size(); ++i) {
    const auto& ranges = ranges_[i];
    if (!IsWithin(shapes[i], ranges[std::min(profile, ranges.size() - 1)])) return false;
  }
  return true;
}

std::optional<size_t> PlanLayout::ProfileOf(std::span<const Shape> shapes) const {
  std::optional<size_t> best;
  for (size_t p = 0; p < rows_.size(); ++p) {
    if (Fits(p, shapes) && (!best || rows_[p].greatest < rows_[*best].greatest)) best = p;
  }
  return best;
}

std::optional<size_t> PlanLayout::ProfileOfRows(uint32_t rows) const {
  std::optional<size_t> best;
  for (size_t p = 0; p < rows_.size(); ++p) {
    const bool fits = rows_[p].least <= rows && rows <= rows_[p].greatest;
    if (fits && (!best || rows_[p].greatest < rows_[*best].greatest)) best = p;
  }
  return best;
}

std::vector<Shape> PlanLayout::ShapesOf(uint32_t rows) const {
  std::vector<Shape> shapes;
  for (const TensorSpec& spec : signature_.inputs) {
    shapes.push_back(has_rows_ ? spec.dims.WithoutFirst().WithFirst(rows) : spec.dims);
  }
  return shapes;
}

std::vector<Shape> PlanLayout::GreatestShapes(size_t profile) const {
  std::vector<Shape> shapes;
  for (const auto& ranges : ranges_) {
    shapes.push_back(ranges[std::min(profile, ranges.size() - 1)].greatest);
    if (has_rows_) shapes.back()[0] = rows_[profile].greatest;
  }
  return shapes;
}

Status PlanLayout::WhyNoProfile(std::span<const Shape> shapes) const {
  std::string got;
  std::string taken;
  for (size_t i = 0; i < shapes.size(); ++i) {
    got += StrCat(i == 0 ? "" : ", ", "'", signature_.inputs[i].name, "' ", shapes[i].ToString());
  }
  for (size_t p = 0; p < rows_.size(); ++p) {
    taken += p == 0 ? "" : "; or ";
    for (size_t i = 0; i < ranges_.size(); ++i) {
      const ProfileRange& range = ranges_[i][std::min(p, ranges_[i].size() - 1)];
      taken += StrCat(i == 0 ? "" : ", ", "'", signature_.inputs[i].name, "' ",
                      range.least.ToString(), " to ", range.greatest.ToString());
    }
  }
  return InvalidArgument(StrCat(label_, ": no profile of the plan takes these shapes, got ", got,
                                ", expected ", taken));
}

}  // namespace penstock::tensorrt
