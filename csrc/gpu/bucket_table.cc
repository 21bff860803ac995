#include "gpu/bucket_table.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "base/strcat.h"

namespace penstock::gpu {
namespace {

// A change that costs less than this part of a run, 5 %, may be the clock's noise.
constexpr int64_t kNoiseDivisor = 20;

}  // namespace

std::vector<uint32_t> BucketTable::DefaultRows(uint32_t max_rows) {
  assert(max_rows > 0);
  std::vector<uint32_t> rows;
  for (uint64_t n = 1; n < max_rows; n *= 2) rows.push_back(static_cast<uint32_t>(n));
  rows.push_back(max_rows);
  return rows;
}

Result<BucketTable> BucketTable::Create(const std::vector<uint32_t>& rows, uint32_t max_rows,
                                        bool takes_any_rows) {
  std::vector<Bucket> buckets;
  for (const uint32_t n : rows) {
    const uint32_t before = buckets.empty() ? 0 : buckets.back().rows;
    if (n <= before) {
      return InvalidArgument(StrCat("batch sizes of graphs must rise: ", n, " after ", before));
    }
    buckets.push_back({n});
  }
  const uint32_t last = buckets.empty() ? 0 : buckets.back().rows;
  if (last != max_rows || last == 0) {
    return InvalidArgument(StrCat("the largest batch size of graphs must be the model's, expected ",
                                  max_rows, ", got ", last));
  }
  return BucketTable(std::move(buckets), takes_any_rows);
}

BucketTable::BucketTable(std::vector<Bucket> buckets, bool takes_any_rows)
    : buckets_(std::move(buckets)), takes_any_rows_(takes_any_rows) {}

size_t BucketTable::NextBucket(uint32_t rows) const {
  const auto next = std::lower_bound(buckets_.begin(), buckets_.end(), rows,
                                     [](const Bucket& b, uint32_t n) { return b.rows < n; });
  assert(rows > 0 && next != buckets_.end());
  return static_cast<size_t>(next - buckets_.begin());
}

RunPlan BucketTable::Choose(uint32_t rows) const {
  const size_t next = NextBucket(rows);
  const Bucket& bucket = buckets_[next];
  const auto graph = bucket.has_graph ? std::optional(next) : std::nullopt;
  if (bucket.rows == rows || !takes_any_rows_) return {bucket.rows, graph};
  const auto eager_ns = EagerNs(rows);
  const bool pads = graph && bucket.graph_ns && eager_ns && *bucket.graph_ns <= *eager_ns;
  return pads ? RunPlan{bucket.rows, graph} : RunPlan{rows};
}

std::optional<int64_t> BucketTable::EagerNs(uint32_t rows) const {
  const size_t next = NextBucket(rows);
  const Bucket& above = buckets_[next];
  if (above.rows == rows || next == 0) return above.eager_ns;
  const Bucket& below = buckets_[next - 1];
  if (!above.eager_ns || !below.eager_ns) return std::nullopt;
  const double share = static_cast<double>(rows - below.rows) / (above.rows - below.rows);
  const auto rise = static_cast<double>(*above.eager_ns - *below.eager_ns);
  return *below.eager_ns + static_cast<int64_t>(share * rise);
}

int64_t BucketTable::ChangeNs(uint32_t rows) const {
  const Bucket& bucket = buckets_[NextBucket(rows)];
  if (!bucket.first_ns || !bucket.eager_ns) return 0;
  return std::max<int64_t>(0, *bucket.first_ns - *bucket.eager_ns);
}

bool BucketTable::ChangesCost() const {
  const auto costs = std::count_if(buckets_.begin(), buckets_.end(), [](const Bucket& b) {
    return b.first_ns && b.eager_ns && *b.first_ns - *b.eager_ns > *b.eager_ns / kNoiseDivisor;
  });
  return costs > 0 && static_cast<size_t>(costs) * 2 >= buckets_.size();
}

}  // namespace penstock::gpu
