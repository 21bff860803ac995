// TokenTable: callers that are known by a digest for a while.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "base/mutex.h"
#include "base/sha256.h"
#include "base/status.h"
#include "engine/call_group.h"
#include "engine/rate_limiter.h"

namespace penstock {

// Who somebody turned out to be, and what that allows.
struct Principal {
  std::string name;  // as texts call it: "key 'team-a'"
  CallGroups groups;
  RateLimit rate;
  size_t max_request_bytes = 0;  // 0 = no bound of its own
};

// A digest is as good as random: its first bytes are its hash. Equality takes its time.
struct DigestHash {
  size_t operator()(const Sha256Digest& digest) const {
    size_t hash = 0;
    std::memcpy(&hash, digest.data(), sizeof hash);
    return hash;
  }
};
struct DigestEqual {
  bool operator()(const Sha256Digest& a, const Sha256Digest& b) const {
    return EqualInConstantTime({reinterpret_cast<const char*>(a.data()), a.size()},
                               {reinterpret_cast<const char*>(b.data()), b.size()});
  }
};

template <typename Value>
using DigestMap = std::unordered_map<Sha256Digest, Value, DigestHash, DigestEqual>;

using PrincipalRef = std::shared_ptr<const Principal>;  // shared: calls outlive a change of keys
// Who it is, or why nobody.
using Verdict = std::variant<PrincipalRef, Status>;

// Verdicts by digest, each until its time; at most `max_entries`, from where the oldest goes.
// Threading: thread-safe.
class TokenTable {
 public:
  explicit TokenTable(size_t max_entries) : max_entries_(max_entries) {}

  void Put(const Sha256Digest& digest, Verdict verdict, int64_t until_ns);
  // Null: not known, or no longer.
  std::shared_ptr<const Verdict> Find(const Sha256Digest& digest, int64_t now_ns) const;
  void Clear();

  size_t size() const;

 private:
  struct Entry {
    Sha256Digest digest;
    std::shared_ptr<const Verdict> verdict;
    int64_t until_ns;
  };
  using Entries = std::list<Entry>;

  // Constant after construction.
  const size_t max_entries_;

  mutable Mutex mu_;
  // Guarded by mu_.
  Entries entries_ GUARDED_BY(mu_);  // the oldest last
  DigestMap<Entries::iterator> by_digest_ GUARDED_BY(mu_);
};

}  // namespace penstock
