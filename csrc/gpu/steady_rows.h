// SteadyRows: how many rows batches are run with on an engine that pays for another number of rows
// than it ran last (DeviceEngine::row_changes_cost).
//
// Rows behind a batch cost a little each time, a change much at once: skis, rented or bought (Karlin,
// Manasse, Rudolph, Sleator: "Competitive snoopy caching", 1988). It stays at a size until what a
// smaller one would have saved since is more than the change to it and back:
//
//   sum over batches of steady(size) - steady(smaller)  >  change(smaller) + change(size)
//
// and then changes to it. A batch that is larger than the size changes it at once, to the bucket's
// rows, so that sizes that rise step by step change it seldom. Where batches are of two sizes, rows
// and changes cost at most twice what they cost one who knows all batches beforehand (but for the
// last change): before it leaves the larger size both have paid as much, and there and back cost that
// again. With more sizes that is no theorem; in all that steady_rows_test tries it is at most four
// times, and twice with the batches' own times.

#pragma once

#include <cstdint>
#include <vector>

#include "gpu/bucket_table.h"

namespace penstock::gpu {

// Threading: thread-compatible.
// Ownership: borrows the table, whose times are read when a batch comes.
class SteadyRows {
 public:
  explicit SteadyRows(const BucketTable& table);

  // The rows to run a batch of `rows` rows with; its own where the table has changes cost nothing.
  // REQUIRES: 0 < rows <= the last bucket's.
  uint32_t Choose(uint32_t rows);
  // What the last batch was run with; 0: nobody knows.
  uint32_t size() const { return size_; }
  // A run has failed: whether the engine has changed is not known.
  void Forget() { Change(0); }

 private:
  // A size to change to.
  struct Smaller {
    uint32_t room = 0;    // the most rows that it stands for
    int64_t batches = 0;  // that have all fitted, up to the last
    uint32_t rows = 0;    // of the largest of them: what would be changed to
  };

  void Change(uint32_t size);
  void Count(uint32_t rows);
  // What it would have saved beyond what changes cost; not more than 0: nothing.
  int64_t GainNs(const Smaller& smaller) const;

  const BucketTable& table_;
  std::vector<Smaller> smaller_;  // ascending, an eighth apart
  uint32_t size_ = 0;
};

}  // namespace penstock::gpu
