// OutQueue: the bytes that a connection has ready for its socket.

#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "tensor/buffer.h"
#include "transport/reply.h"

namespace penstock {

// Small runs are copied into chunks, large ones are referred to where they lie.
// Threading: confined to its I/O thread.
// Ownership: owns its chunks, and a reference on the reply behind each run that it refers to.
class OutQueue {
 public:
  // Room for `size` bytes in one piece behind what is queued; to be written before the next call.
  // Throws std::bad_alloc when the system has no memory.
  std::span<uint8_t> Reserve(size_t size);
  void Append(std::span<const uint8_t> bytes);
  // Queues bytes that `owner` keeps alive.
  void Refer(std::span<const uint8_t> bytes, Reply& owner);

  bool empty() const { return size_ == 0; }
  size_t size() const { return size_; }
  size_t chunks() const { return chunks_.size(); }  // of memory that it holds now

  // The first runs, at most `max_runs`, for one system call.
  template <typename Visit>
  void ForFirst(size_t max_runs, Visit visit) const {
    for (size_t i = first_; i < runs_.size() && i - first_ < max_runs; ++i) {
      visit(std::span<const uint8_t>(runs_[i].data, runs_[i].size));
    }
  }
  // `size` bytes have been written.
  void Drop(size_t size);
  // Copies what lies in the memory of batches and is taken from there since before then.
  void CopyOut(int64_t begun_before_ns);

 private:
  static constexpr size_t kChunkBytes = 32 << 10;

  struct Run {
    const uint8_t* data;
    size_t size;
    ReplyRef owner;  // of what it refers to
    Buffer copy;     // where it lies once it was copied
    bool is_in_chunk() const { return !owner && copy.size() == 0; }
  };

  struct Chunk {
    Buffer bytes;
    size_t unwritten = 0;
  };

  void DropRuns();

  std::vector<Run> runs_;
  size_t first_ = 0;  // the first that is not written
  size_t size_ = 0;
  std::deque<Chunk> chunks_;  // in the order of their runs; the last one is being filled
  size_t used_ = 0;           // of the last chunk
};

}  // namespace penstock
