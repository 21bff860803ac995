#include "gpu/steady_rows.h"

#include <algorithm>

namespace penstock::gpu {

SteadyRows::SteadyRows(const BucketTable& table) : table_(table) {
  const uint64_t most = table.buckets().back().rows;
  for (uint64_t room = 1; room < most; room += std::max<uint64_t>(1, room / 8)) {
    smaller_.push_back({static_cast<uint32_t>(room)});
  }
  smaller_.push_back({static_cast<uint32_t>(most)});
}

void SteadyRows::Change(uint32_t size) {
  size_ = size;
  for (Smaller& each : smaller_) each = {each.room};
}

void SteadyRows::Count(uint32_t rows) {
  for (Smaller& each : smaller_) {
    if (rows > each.room || rows >= size_) {
      each = {each.room};
      continue;
    }
    ++each.batches;
    each.rows = std::max(each.rows, rows);
  }
}

int64_t SteadyRows::GainNs(const Smaller& smaller) const {
  if (smaller.batches == 0) return 0;
  const auto here = table_.EagerNs(size_);
  const auto there = table_.EagerNs(smaller.rows);
  if (!here || !there || *here <= *there) return 0;
  return smaller.batches * (*here - *there) - table_.ChangeNs(smaller.rows) -
         table_.ChangeNs(size_);
}

uint32_t SteadyRows::Choose(uint32_t rows) {
  if (!table_.ChangesCost()) return rows;
  if (rows > size_) Change(table_.RowsOfBucket(rows));
  Count(rows);
  uint32_t best = size_;
  int64_t most_ns = 0;
  for (const Smaller& each : smaller_) {
    const int64_t gain_ns = GainNs(each);
    if (gain_ns <= most_ns) continue;
    most_ns = gain_ns;
    best = each.rows;
  }
  if (best != size_) Change(best);
  return size_;
}

}  // namespace penstock::gpu
