#include "engine/token_table.h"

#include <utility>

namespace penstock {

void TokenTable::Put(const Sha256Digest& digest, Verdict verdict, int64_t until_ns) {
  auto shared = std::make_shared<const Verdict>(std::move(verdict));
  MutexLock lock(mu_);
  if (const auto found = by_digest_.find(digest); found != by_digest_.end()) {
    entries_.erase(found->second);
    by_digest_.erase(found);
  }
  entries_.push_front({digest, std::move(shared), until_ns});
  by_digest_.emplace(digest, entries_.begin());
  if (entries_.size() <= max_entries_) return;
  by_digest_.erase(entries_.back().digest);
  entries_.pop_back();
}

std::shared_ptr<const Verdict> TokenTable::Find(const Sha256Digest& digest, int64_t now_ns) const {
  MutexLock lock(mu_);
  const auto found = by_digest_.find(digest);
  if (found == by_digest_.end() || found->second->until_ns <= now_ns) return nullptr;
  return found->second->verdict;
}

void TokenTable::Clear() {
  MutexLock lock(mu_);
  by_digest_.clear();
  entries_.clear();
}

size_t TokenTable::size() const {
  MutexLock lock(mu_);
  return entries_.size();
}

}  // namespace penstock
