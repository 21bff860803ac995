#include "gpu/graph_cache.h"

#include <string>

#include "base/strcat.h"

namespace penstock::gpu {

Status GraphCache::Capture(const Slot& slot, size_t bucket, uint32_t rows, Stream stream) {
  if (budget_.used_bytes >= budget_.limit_bytes) {
    return ResourceExhausted(StrCat(engine_.name(), ": graphs already hold ", budget_.used_bytes,
                                    " bytes, expected at most ", budget_.limit_bytes));
  }
  // The pool gives back what was freed before, of a bucket that was dropped, say: used again it would
  // count as nothing.
  PENSTOCK_RETURN_IF_ERROR(
      health_.Check(api_.SynchronizeStream(stream), StrCat("prepare a graph of ", engine_.name())));
  PENSTOCK_ASSIGN_OR_RETURN(const size_t free_before, FreeBytes());
  Entry entry;
  PENSTOCK_ASSIGN_OR_RETURN(entry.context, engine_.CreateContext(slot.bindings, rows, stream));
  if (Status made = Make(entry, rows, stream); !made.ok()) {
    unfinished_.push_back(std::move(entry));
    return made;
  }
  PENSTOCK_ASSIGN_OR_RETURN(const size_t free_after, FreeBytes());
  entry.held_bytes = free_before > free_after ? free_before - free_after : 0;
  if (entry.held_bytes > budget_.limit_bytes - budget_.used_bytes) {
    return ResourceExhausted(StrCat(engine_.name(), ": the graph of ", rows, " rows holds ",
                                    entry.held_bytes, " bytes with its context, left of the ",
                                    "budget are ", budget_.limit_bytes - budget_.used_bytes));
  }
  budget_.used_bytes += entry.held_bytes;
  entries_.insert_or_assign({slot.index, bucket}, std::move(entry));
  return Status::Ok();
}

void GraphCache::Drop(size_t bucket) {
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (it->first.second != bucket) {
      ++it;
      continue;
    }
    budget_.used_bytes -= it->second.held_bytes;
    it = entries_.erase(it);
  }
}

// The graph runs once too: memory that it needs on the device is taken at its first launch.
Status GraphCache::Make(Entry& entry, uint32_t rows, Stream stream) {
  PENSTOCK_RETURN_IF_ERROR(Warm(*entry.context, rows, stream));
  PENSTOCK_ASSIGN_OR_RETURN(entry.exec, Record(*entry.context, rows, stream));
  const std::string what = StrCat("run the graph of ", engine_.name(), " with ", rows, " rows");
  PENSTOCK_RETURN_IF_ERROR(health_.Check(api_.LaunchGraph(entry.exec.get(), stream), what));
  return health_.Check(api_.SynchronizeStream(stream), what);
}

GraphExec GraphCache::Find(const Slot& slot, size_t bucket) const {
  const auto found = entries_.find({slot.index, bucket});
  return found == entries_.end() ? nullptr : found->second.exec.get();
}

Status GraphCache::Warm(DeviceContext& context, uint32_t rows, Stream stream) {
  const std::string what = StrCat("run ", engine_.name(), " with ", rows, " rows");
  PENSTOCK_RETURN_IF_ERROR(health_.CheckEngine(context.Enqueue(stream, rows), what));
  return health_.Check(api_.SynchronizeStream(stream), what);
}

Result<OwnedGraphExec> GraphCache::Record(DeviceContext& context, uint32_t rows, Stream stream) {
  const std::string what = StrCat("capture ", engine_.name(), " with ", rows, " rows");
  PENSTOCK_RETURN_IF_ERROR(health_.Check(api_.BeginCapture(stream), what));
  const Status enqueued = health_.CheckEngine(context.Enqueue(stream, rows), what);
  Graph captured = nullptr;
  const Status ended = health_.Check(api_.EndCapture(stream, &captured), what);
  const OwnedGraph graph = ended.ok() ? OwnedGraph(api_, captured) : OwnedGraph();
  if (!enqueued.ok()) return enqueued;
  PENSTOCK_RETURN_IF_ERROR(ended);
  GraphExec exec = nullptr;
  PENSTOCK_RETURN_IF_ERROR(health_.Check(api_.Instantiate(graph.get(), &exec), what));
  return OwnedGraphExec(api_, exec);
}

Result<size_t> GraphCache::FreeBytes() {
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  PENSTOCK_RETURN_IF_ERROR(
      health_.Check(api_.MemoryInfo(&free_bytes, &total_bytes), "ask for free memory"));
  return free_bytes;
}

}  // namespace penstock::gpu
