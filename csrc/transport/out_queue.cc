#include "transport/out_queue.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "memory/host_pool.h"

namespace penstock {

std::span<uint8_t> OutQueue::Reserve(size_t size) {
  if (chunks_.empty() || chunks_.back().bytes.size() - used_ < size) {
    chunks_.push_back({HostPool::Shared().Allocate(std::max(size, kChunkBytes))});
    used_ = 0;
  }
  uint8_t* const data = chunks_.back().bytes.data() + used_;
  const bool continues = runs_.size() > first_ && runs_.back().is_in_chunk() &&
                         runs_.back().data + runs_.back().size == data;
  if (continues) {
    runs_.back().size += size;
  } else {
    runs_.push_back({data, size, ReplyRef(), Buffer()});
  }
  chunks_.back().unwritten += size;
  used_ += size;
  size_ += size;
  return {data, size};
}

void OutQueue::Append(std::span<const uint8_t> bytes) {
  if (bytes.empty()) return;
  std::memcpy(Reserve(bytes.size()).data(), bytes.data(), bytes.size());
}

void OutQueue::Refer(std::span<const uint8_t> bytes, Reply& owner) {
  if (bytes.empty()) return;
  runs_.push_back({bytes.data(), bytes.size(), ReplyRef(&owner), Buffer()});
  size_ += bytes.size();
}

void OutQueue::Drop(size_t size) {
  size_ -= size;
  while (size != 0) {
    Run& run = runs_[first_];
    size_t dropped = std::min(run.size, size);
    if (run.is_in_chunk()) {
      // A run may go on from one chunk into the next where they lie side by side.
      while (chunks_.front().unwritten == 0) chunks_.pop_front();
      dropped = std::min(dropped, chunks_.front().unwritten);
      chunks_.front().unwritten -= dropped;
    }
    run.data += dropped;
    run.size -= dropped;
    size -= dropped;
    if (run.size != 0) continue;
    run.owner = ReplyRef();
    run.copy = Buffer();
    ++first_;
  }
  DropRuns();
}

void OutQueue::CopyOut(int64_t begun_before_ns) {
  for (size_t i = first_; i < runs_.size(); ++i) {
    Run& run = runs_[i];
    if (!run.owner || !run.owner->IsHeldSince(begun_before_ns)) continue;
    run.copy = HostPool::Shared().Allocate(run.size);
    std::memcpy(run.copy.data(), run.data, run.size);
    run.data = run.copy.data();
    run.owner = ReplyRef();
  }
}

// Lets go of what has been written, also where the queue never becomes empty.
void OutQueue::DropRuns() {
  while (chunks_.size() > 1 && chunks_.front().unwritten == 0) chunks_.pop_front();
  if (first_ * 2 >= runs_.size()) {
    runs_.erase(runs_.begin(), runs_.begin() + static_cast<ptrdiff_t>(first_));
    first_ = 0;
  }
  if (size_ != 0) return;
  if (!chunks_.empty() && chunks_.back().bytes.size() > kChunkBytes) chunks_.clear();
  used_ = 0;
}

}  // namespace penstock
