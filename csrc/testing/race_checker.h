// RaceChecker: finds accesses of a GPU's streams that nothing orders, whatever the timing was.
//
// A vector clock per stream, moved by the order in which the host enqueues: an access is ordered
// behind another if the stream's clock has passed it, by the stream's own order, by an event that it
// waited for, or because the host knew that it was over before it enqueued.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace penstock {

struct MemoryRange {
  const void* data = nullptr;
  size_t size_bytes = 0;
};

// Threading: thread-compatible.
// Cost: an access is compared with all that the host does not know to be over.
class RaceChecker {
 public:
  // What has happened: for each stream, how many of its operations.
  using Clock = std::vector<uint64_t>;

  // A new stream; its number.
  size_t AddStream();
  // Stream `id` is given an operation.
  void Enqueue(size_t id, const std::vector<MemoryRange>& reads,
               const std::vector<MemoryRange>& writes);
  // What an event that is recorded on the stream now will stand for.
  Clock Record(size_t id) const { return streams_[id]; }
  // The stream waits for that; the host knows that it has happened.
  void Wait(size_t id, const Clock& recorded) { Join(&streams_[id], recorded); }
  void HostKnows(const Clock& recorded);
  // The memory is handed out anew: whoever allocates it comes after what was done there before.
  void Forget(const MemoryRange& range);

  // One line for each pair of unordered accesses, first come first.
  const std::vector<std::string>& races() const { return races_; }

 private:
  struct Access {
    uintptr_t begin, end;
    size_t stream;
    uint64_t at;
    bool is_write;
  };

  static void Join(Clock* clock, const Clock& other);
  static bool Includes(const Clock& clock, const Access& access);
  void Add(const Access& access);

  std::vector<Clock> streams_;
  Clock host_;
  std::vector<Access> open_;  // that the host does not know to be over
  std::vector<std::string> races_;
};

}  // namespace penstock
