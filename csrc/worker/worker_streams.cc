// Worker, as far as decoupled models go: the thread takes their answers, at any time.

#include <algorithm>
#include <exception>
#include <utility>

#include "base/log.h"
#include "base/strcat.h"
#include "worker/worker.h"

namespace penstock {
namespace {

constexpr uint32_t kLast = 1;
constexpr uint32_t kNoBody = 2;
constexpr size_t kMaxPending = 64 << 10;  // packets that a worker does not take

}  // namespace

Status Worker::RunStreams(const WorkerBatch& batch, SlabArena* arena,
                          const std::shared_ptr<WorkerStreams>& streams,
                          std::atomic<uint64_t>* batch_id) {
  MutexLock run(run_mu_);
  PENSTOCK_ASSIGN_OR_RETURN(const auto session, Current());
  const uint64_t id = batches_ + 1;
  *batch_id = id;
  {
    MutexLock lock(mu_);
    streams_[id] = {streams, std::vector<bool>(batch.requests.size()), false};
  }
  wake_.Set();  // from now on it looks at them
  Status sent = Send(*session, batch, arena);
  if (sent.ok()) streams->OnSent();  // the model may be told of a client that goes from now on
  MutexLock lock(mu_);
  const auto found = streams_.find(id);
  if (!sent.ok()) {
    if (found != streams_.end()) streams_.erase(found);
    return sent;
  }
  // Once it is taken the answers may come to their end before this thread has looked.
  while (session_ == session) {
    const auto entry = streams_.find(id);
    if (entry == streams_.end()) return Status::Ok();
    if (entry->second.is_taken) return Status::Ok();
    changed_.Wait(mu_);
  }
  return Status::Ok();  // it has ended, and `streams` was told how
}

void Worker::Tell(WorkerPacketKind kind, uint64_t batch, uint32_t request, uint32_t value) {
  {
    MutexLock lock(mu_);
    const auto found = streams_.find(batch);
    const bool is_open = found != streams_.end() && request < found->second.is_finished.size() &&
                         !found->second.is_finished[request];
    if (!is_open) return;
    pending_.push_back({.kind = kind, .batch = batch, .request = request, .value = value});
  }
  wake_.Set();
}

// True: there is nothing left to send.
bool Worker::SendPending(WorkerSession& session) {
  MutexLock lock(mu_);
  while (!pending_.empty()) {
    if (!session.process().socket().TrySend(pending_.front())) return false;
    pending_.pop_front();
  }
  return true;
}

Status Worker::HandleStreamPacket(WorkerSession& session, const WorkerPacket& packet) {
  silent_since_ns_ = 0;
  {
    MutexLock lock(mu_);
    if (pending_.size() > kMaxPending) return InvalidArgument("it sends, and takes nothing");
  }
  switch (packet.kind) {
    case WorkerPacketKind::kGrow:
      return session.channel().AnswerGrow(packet.size);
    case WorkerPacketKind::kResponse:
      return HandleResponse(session, packet);
    case WorkerPacketKind::kDone:
      return HandleDone(session, packet);
    default:
      return InvalidArgument(StrCat("a packet of kind ", static_cast<uint32_t>(packet.kind),
                                    " from a decoupled model"));
  }
}

Status Worker::HandleResponse(WorkerSession& session, const WorkerPacket& packet) {
  std::shared_ptr<WorkerStreams> sink;
  {
    MutexLock lock(mu_);
    const auto found = streams_.find(packet.batch);
    if (found == streams_.end() || packet.request >= found->second.is_finished.size() ||
        found->second.is_finished[packet.request]) {
      return InvalidArgument("a response to a request that is finished");
    }
    sink = found->second.sink;
  }
  if ((packet.value & kNoBody) == 0) {
    PENSTOCK_ASSIGN_OR_RETURN(auto answers,
                              session.channel().TakeAnswers(packet, 1, /*may_hand_out=*/false));
    {
      MutexLock lock(mu_);
      pending_.push_back({.kind = WorkerPacketKind::kTaken});
    }
    sink->OnResponse(packet.request, std::move(answers[0]), (packet.value & kLast) != 0);
  }
  if ((packet.value & kLast) == 0) return Status::Ok();
  {
    MutexLock lock(mu_);
    const auto found = streams_.find(packet.batch);
    if (found == streams_.end()) return InvalidArgument("a response to a batch that is finished");
    auto& streams = found->second;
    streams.is_finished[packet.request] = true;
    const bool is_over = std::find(streams.is_finished.begin(), streams.is_finished.end(), false) ==
                         streams.is_finished.end();
    if (is_over && streams.is_taken) streams_.erase(found);
  }
  sink->OnLast(packet.request);
  return Status::Ok();
}

Status Worker::HandleDone(WorkerSession& session, const WorkerPacket& packet) {
  PENSTOCK_ASSIGN_OR_RETURN(auto answers,
                            session.channel().TakeAnswers(packet, 1, /*may_hand_out=*/false));
  std::shared_ptr<WorkerStreams> refused;
  {
    MutexLock lock(mu_);
    const auto found = streams_.find(packet.batch);
    if (found == streams_.end() || found->second.is_taken) {
      return InvalidArgument("DONE for a batch that is finished");
    }
    auto& streams = found->second;
    streams.is_taken = true;
    pending_.push_back({.kind = WorkerPacketKind::kTaken});
    if (answers[0].code != StatusCode::kOk) refused = streams.sink;
    const bool is_over = std::find(streams.is_finished.begin(), streams.is_finished.end(), false) ==
                         streams.is_finished.end();
    if (is_over || refused != nullptr) streams_.erase(found);
    changed_.NotifyAll();
  }
  if (refused != nullptr) refused->OnEnd({answers[0].code, answers[0].text});
  return Status::Ok();
}

// A model that could go on and says nothing for too long is killed.
void Worker::LookAtStreams() {
  const int64_t now_ns = Clock::System().NowNs();
  std::vector<std::pair<std::shared_ptr<WorkerStreams>, StreamsLook>> sinks;
  {
    MutexLock lock(mu_);
    if (phase_ != Phase::kReady || is_stopping_) return;
    for (const auto& [batch, streams] : streams_) {
      sinks.push_back({streams.sink, {!streams.is_taken, now_ns, options_.execution_limit_ns}});
    }
  }
  bool can_go_on = false;
  bool is_held_up = false;
  for (const auto& [sink, look] : sinks) {
    const bool may = sink->Look(look);
    can_go_on |= may;
    is_held_up |= look.is_executing && !may;
  }
  can_go_on &= !is_held_up;  // while execute waits for a client nobody else's turn comes
  if (!can_go_on) silent_since_ns_ = 0;
  if (can_go_on && silent_since_ns_ == 0) silent_since_ns_ = now_ns;
  const bool is_late = can_go_on && options_.execution_limit_ns > 0 &&
                       now_ns - silent_since_ns_ >= options_.execution_limit_ns;
  if (!is_late) return;
  limit_ns_ = now_ns;
  late_how_ = "was killed, for it gave no response for longer than its execution limit";
}

void Worker::EndStreams(const std::string& how) {
  std::map<uint64_t, Streams> ended;
  {
    MutexLock lock(mu_);
    ended.swap(streams_);
    pending_.clear();
  }
  silent_since_ns_ = 0;
  const Status status = Unavailable(Say(StrCat("its worker ", how, " while it ran the request")));
  for (auto& [batch, streams] : ended) {
    try {
      streams.sink->OnEnd(status);
    } catch (const std::exception& error) {  // the others are told all the same
      WriteLog(LogLevel::kError, error.what());
    }
  }
}

}  // namespace penstock
