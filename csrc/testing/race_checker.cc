#include "testing/race_checker.h"

#include <algorithm>

#include "base/strcat.h"

namespace penstock {

size_t RaceChecker::AddStream() {
  streams_.emplace_back();
  return streams_.size() - 1;
}

void RaceChecker::Join(Clock* clock, const Clock& other) {
  if (clock->size() < other.size()) clock->resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) (*clock)[i] = std::max((*clock)[i], other[i]);
}

bool RaceChecker::Includes(const Clock& clock, const Access& access) {
  return access.stream < clock.size() && clock[access.stream] >= access.at;
}

void RaceChecker::Enqueue(size_t id, const std::vector<MemoryRange>& reads,
                          const std::vector<MemoryRange>& writes) {
  Clock& clock = streams_[id];
  Join(&clock, host_);
  if (clock.size() <= id) clock.resize(id + 1);
  const uint64_t at = ++clock[id];
  for (const bool is_write : {false, true}) {
    for (const MemoryRange& range : is_write ? writes : reads) {
      const auto begin = reinterpret_cast<uintptr_t>(range.data);
      Add({begin, begin + range.size_bytes, id, at, is_write});
    }
  }
}

void RaceChecker::Add(const Access& access) {
  for (const Access& other : open_) {
    const bool overlaps = other.begin < access.end && access.begin < other.end;
    if (!overlaps || !(other.is_write || access.is_write)) continue;
    if (Includes(streams_[access.stream], other)) continue;
    races_.push_back(StrCat("operation ", access.at, " of stream ", access.stream,
                            access.is_write ? " writes" : " reads", " what operation ", other.at,
                            " of stream ", other.stream, other.is_write ? " writes" : " reads"));
  }
  open_.push_back(access);
}

void RaceChecker::HostKnows(const Clock& recorded) {
  Join(&host_, recorded);
  std::erase_if(open_, [this](const Access& access) { return Includes(host_, access); });
}

void RaceChecker::Forget(const MemoryRange& range) {
  const auto begin = reinterpret_cast<uintptr_t>(range.data);
  std::erase_if(open_, [=](const Access& access) {
    return access.begin < begin + range.size_bytes && begin < access.end;
  });
}

}  // namespace penstock
