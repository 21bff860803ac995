// Slab: memory that the server and a worker share, and the arena that batches are gathered into.
//
// A slab is a memfd of a fixed size, sealed so that neither side can shrink or enlarge it: a page of
// it never goes away under a reader. What grows is made anew. The worker's side may be written by
// the worker at any time, so nothing that is read from it is read twice.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/status.h"
#include "tensor/buffer.h"
#include "worker/owned_fd.h"

namespace penstock {

// Threading: thread-safe, but for its contents; the descriptor and the mapping never change.
// Ownership: owns both. Shared: by the arena or session that uses it and the buffers that lie in it.
class Slab {
 public:
  static constexpr size_t kPageBytes = 4096;

  // RESOURCE_EXHAUSTED where the system has no memory or no descriptor left. `is_lasting`: it is there
  // to serve more than one batch.
  static Result<std::shared_ptr<Slab>> Create(size_t size_bytes, bool is_lasting = true);
  // A sealed memfd, not mapped, with these contents: read-only for good.
  static Result<OwnedFd> CreateDocument(std::string_view contents);
  ~Slab();
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  uint32_t id() const { return id_; }  // unique in this process
  int fd() const { return fd_.get(); }
  uint8_t* data() const { return data_; }
  size_t size() const { return size_bytes_; }
  bool is_lasting() const { return is_lasting_; }
  // Counts who reads an output where it lies. Once nobody does, what they have read is behind them.
  void Hold() { holders_.fetch_add(1, std::memory_order_relaxed); }
  void LetGo() { holders_.fetch_sub(1, std::memory_order_release); }
  bool is_held() const { return holders_.load(std::memory_order_acquire) > 0; }

  // Where `data` lies in the slab, if all of it does.
  std::optional<size_t> OffsetOf(std::span<const uint8_t> data) const;

 private:
  Slab(OwnedFd fd, uint8_t* data, size_t size_bytes, bool is_lasting);

  const uint32_t id_;
  const OwnedFd fd_;
  uint8_t* const data_;
  const size_t size_bytes_;
  const bool is_lasting_;
  std::atomic<uint32_t> holders_{0};
};

// Where a part of a slab lies.
struct SlabPlace {
  std::shared_ptr<Slab> slab;
  size_t offset = 0;
};

// Hands out the memory of one batch after the other, from a slab that is as large as batches lately
// were. One larger than kGreatestKeptBytes goes with its batch, so that one huge batch does not stay
// resident, unless such batches are usual: from the second on it stays until there have been up to
// eight of less than half of it. To fill a slab that is new takes nine times as long (57 ms instead of 6 for 77 MB).
// Threading: confined to its instance's thread.
// Ownership: owns the slabs of the current batch; what it handed out is borrowed until Reset.
class SlabArena {
 public:
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kFirstSlabBytes = 64 << 10;
  static constexpr size_t kGreatestKeptBytes = 64 << 20;

  Result<std::span<uint8_t>> Allocate(size_t size_bytes);
  // The slab that `data` was allocated from; nullopt where it is not from here.
  std::optional<SlabPlace> Find(std::span<const uint8_t> data) const;
  // Takes everything back, for the next batch.
  void Reset();

 private:
  static constexpr int kForAHugeBatch = 8;  // smaller ones
  static constexpr int kMostSmaller = 2 * kForAHugeBatch;

  std::vector<std::shared_ptr<Slab>> slabs_;  // the last one is being filled
  int smaller_left_ = 0;                      // batches until huge ones are not usual any more
  size_t used_bytes_ = 0;                     // of the last slab
  size_t batch_bytes_ = 0;                    // of this batch, all slabs together
};

}  // namespace penstock
