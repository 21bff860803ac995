// Target: what LoadGen's samples are given to.

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace penstock::loadgen {

// A sample that LoadGen wants: `id` goes back with its answer.
struct Query {
  uint64_t id = 0;
  size_t sample = 0;  // in the query sample library
};

// What LoadGen is told of one. Ownership: borrows `data`, which the recorder keeps.
struct Response {
  uint64_t id = 0;
  std::string_view data;  // the answer's tensor, in accuracy mode; else empty
};

// Threading: Issue on LoadGen's thread, one at a time.
class Target {
 public:
  virtual ~Target() = default;
  // Each query is answered once, through the target's recorder, here or later on another thread.
  virtual void Issue(std::span<const Query> queries) = 0;
};

}  // namespace penstock::loadgen
