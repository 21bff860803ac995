#include "transport/out_queue.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "memory/host_pool.h"

namespace penstock {

std::span<uint8_t> OutQueue::Reserve(size_t size) {
  if (chunks_.empty() || chunks_.back().size() - used_ < size) {
    chunks_.push_back(HostPool::Shared().Allocate(std::max(size, kChunkBytes)));
    used_ = 0;
  }
  uint8_t* const data = chunks_.back().data() + used_;
  const bool continues =
      runs_.size() > first_ && !runs_.back().owner && runs_.back().data + runs_.back().size == data;
  if (continues) {
    runs_.back().size += size;
  } else {
    runs_.push_back({data, size, ReplyRef()});
  }
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
  runs_.push_back({bytes.data(), bytes.size(), ReplyRef(&owner)});
  size_ += bytes.size();
}

void OutQueue::Drop(size_t size) {
  size_ -= size;
  while (size != 0) {
    Run& run = runs_[first_];
    const size_t dropped = std::min(run.size, size);
    run.data += dropped;
    run.size -= dropped;
    size -= dropped;
    if (run.size != 0) return;
    run.owner = ReplyRef();
    ++first_;
  }
  if (size_ != 0) return;
  runs_.clear();
  first_ = 0;
  if (chunks_.size() > 1) chunks_.erase(chunks_.begin(), chunks_.end() - 1);
  if (!chunks_.empty() && chunks_.back().size() > kChunkBytes) chunks_.clear();
  used_ = 0;
}

}  // namespace penstock
