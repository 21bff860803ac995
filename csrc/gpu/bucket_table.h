// BucketTable: the batch sizes that a model has graphs for, what they take, and which to run.

#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/status.h"

namespace penstock::gpu {

struct Bucket {
  uint32_t rows = 0;
  bool has_graph = false;  // in every lane
  // Measured when the model was loaded; nullopt = not measured.
  std::optional<int64_t> graph_ns = std::nullopt;  // a launch of the graph
  std::optional<int64_t> eager_ns = std::nullopt;  // the same rows without one
  std::optional<int64_t> first_ns = std::nullopt;  // and when the run before had other rows
};

// How to run a batch.
struct RunPlan {
  uint32_t rows = 0;                            // that are computed, padding included
  std::optional<size_t> bucket = std::nullopt;  // whose graph is launched
  bool operator==(const RunPlan&) const = default;
};

// Threading: thread-compatible; const calls are thread-safe.
class BucketTable {
 public:
  // 1, 2, 4, ... and `max_rows`. REQUIRES: max_rows > 0.
  static std::vector<uint32_t> DefaultRows(uint32_t max_rows);
  // INVALID_ARGUMENT unless `rows` rises strictly from 1 or more up to exactly `max_rows`.
  // `takes_any_rows`: the engine also runs what is not in the table.
  static Result<BucketTable> Create(const std::vector<uint32_t>& rows, uint32_t max_rows,
                                    bool takes_any_rows);

  const std::vector<Bucket>& buckets() const { return buckets_; }
  Bucket& bucket(size_t i) { return buckets_[i]; }

  // The batch's own size where there is a graph for it; the next larger one where the engine takes
  // no other, or where its graph has been measured to be no slower than the rows without a graph.
  // REQUIRES: 0 < rows <= the last bucket's.
  RunPlan Choose(uint32_t rows) const;

  // The rest with the same requirement. The bucket's rows that a batch fits in.
  uint32_t RowsOfBucket(uint32_t rows) const { return buckets_[NextBucket(rows)].rows; }
  // Without a graph: between two measured buckets on the line that joins them.
  std::optional<int64_t> EagerNs(uint32_t rows) const;
  // What a run with these rows takes longer when the one before had others; 0 where that was not
  // measured.
  int64_t ChangeNs(uint32_t rows) const;
  // Whether it is more than what measuring is wrong by, at half of the sizes or more.
  bool ChangesCost() const;

 private:
  BucketTable(std::vector<Bucket> buckets, bool takes_any_rows);

  size_t NextBucket(uint32_t rows) const;

  std::vector<Bucket> buckets_;
  bool takes_any_rows_;
};

}  // namespace penstock::gpu
