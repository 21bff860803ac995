// DeviceWorker, as far as its callers' threads go: parts, batches, clients' memory, and what a model
// uses.

#include <poll.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "backends/device_worker/device_worker.h"
#include "backends/device_worker/worker_memory.h"
#include "base/clock.h"
#include "base/strcat.h"
#include "worker/worker_limits.h"

namespace penstock {
namespace {

constexpr int64_t kEndGraceNs = 950 * kNsPerMs;  // to the end of a killed process
constexpr int kMostPacketsOfAUse = 16;

// Says since when something is under way, as long as it is.
class UnderWay {
 public:
  explicit UnderWay(std::atomic<int64_t>& since_ns) : since_ns_(since_ns) {
    since_ns_ = Clock::System().NowNs();
  }
  ~UnderWay() { since_ns_ = kNever; }
  UnderWay(const UnderWay&) = delete;
  UnderWay& operator=(const UnderWay&) = delete;

 private:
  std::atomic<int64_t>& since_ns_;
};

}  // namespace

// Parts.

Result<std::shared_ptr<WorkerPart>> DeviceWorker::Add(WorkerPartOptions options) {
  const auto part = std::make_shared<WorkerPart>(std::move(options));
  MutexLock lock(mu_);
  part->id_ = ++ids_;
  if (part->options_.model == nullptr && !given_up_.ok()) {
    given_up_ = Status();
    budget_.emplace(options_.restarts);
  }
  if (!given_up_.ok()) return given_up_;
  parts_.push_back(part);
  wake_.Set();
  changed_.NotifyAll();
  while (part->state_ == State::kWanted || part->state_ == State::kMaking) changed_.Wait(mu_);
  if (part->state_ == State::kReady) return part;
  std::erase(parts_, part);
  part->link_.reset();
  wake_.Set();
  return part->status_;
}

void DeviceWorker::Remove(const std::shared_ptr<WorkerPart>& part) {
  MutexLock run(part->run_mu_);  // another instance may have a batch there
  std::shared_ptr<Link> link;
  {
    MutexLock lock(mu_);
    std::erase(parts_, part);
    part->state_ = State::kGone;
    link = std::move(part->link_);
  }
  if (link != nullptr && !AwaitFreed(*link)) {
    Kill(link->session, StrCat("was killed, for it does not free ", part->options_.label));
  }
  wake_.Set();
}

// The worker closes its end once it has freed what it has.
bool DeviceWorker::AwaitFreed(const Link& link) const {
  const int64_t asked_ns = NowNs();
  link.socket.CloseSending();
  WorkerPacket packet;
  for (bool was_held_up = true; was_held_up;) {
    was_held_up = IsHeldUp(link.session, asked_ns);
    const int64_t until_ns = NowNs() + options_.free_limit_ns;
    while (NowNs() < until_ns && link.socket.AwaitPacket(until_ns)) {
      const auto received = link.socket.Receive(/*wait=*/false, &packet);
      if (received == PacketSocket::Received::kClosed) return true;
    }
  }
  return false;
}

bool DeviceWorker::IsHeldUp(const std::shared_ptr<WorkerSession>& process, int64_t asked_ns) const {
  MutexLock lock(mu_);
  if (session_ != process || left_ == process) return false;
  return std::any_of(parts_.begin(), parts_.end(), [asked_ns](const auto& part) {
    const WorkerPartOptions& limits = part->options_;
    return (limits.load_limit_ns != 0 && part->making_since_ns_ <= asked_ns) ||
           (limits.execution_limit_ns != 0 && part->running_since_ns_ <= asked_ns);
  });
}

void DeviceWorker::Kill(const std::shared_ptr<WorkerSession>& session, const std::string& how) {
  MutexLock lock(mu_);
  KillLocked(session, how);
}

void DeviceWorker::KillLocked(const std::shared_ptr<WorkerSession>& session,
                              const std::string& how) {
  session->Kill(how);
  if (session_ == session && killed_ns_ == kNever) killed_ns_ = NowNs();
  wake_.Set();
}

bool DeviceWorker::is_ready(const WorkerPart& part) const {
  MutexLock lock(mu_);
  return part.state_ == State::kReady;
}

// What a model uses.

std::vector<DeviceUse> DeviceWorker::device_use(WorkerPart& model) {
  MutexLock run(model.run_mu_);
  AskUses(model);
  return model.uses_;
}

// What it is asked after goes on, whatever comes of that.
void DeviceWorker::TryAskUses(Part& model) noexcept {
  try {
    MutexLock run(model.run_mu_);
    AskUses(model);
  } catch (const std::exception&) {  // no memory for the answer: the last one stays until the next
  }
}

void DeviceWorker::AskUses(Part& model) {
  model.asked_ns_ = NowNs();
  const auto link = Current(model);
  if (link.ok()) Ask(model, **link);
  if (link.ok() && (*link)->has_told) return;
  for (DeviceUse& use : model.uses_) use.memory_bytes = use.graph_bytes = 0;  // its process is gone
}

void DeviceWorker::Ask(Part& model, Link& link) {
  const Status taken = TakeUses(model, link);
  if (!taken.ok()) {
    Kill(link.session, StrCat("was killed, for it broke the protocol: ", taken.message()));
  } else if (!link.is_asked) {
    link.is_asked = link.socket.TrySend({.kind = WorkerPacketKind::kUse});
  }
}

Status DeviceWorker::TakeUses(Part& model, Link& link) {
  WorkerPacket packet;
  for (int i = 0; link.is_asked && i < kMostPacketsOfAUse; ++i) {
    const auto received = link.socket.Receive(/*wait=*/false, &packet);
    if (received == PacketSocket::Received::kGarbage) {
      return InvalidArgument("a packet of another size");
    }
    if (received != PacketSocket::Received::kPacket) return Status::Ok();
    PENSTOCK_RETURN_IF_ERROR(TakeUse(model, link, packet));
  }
  return link.is_asked ? InvalidArgument("it never says what a model uses") : Status::Ok();
}

Status DeviceWorker::TakeUse(Part& model, Link& link, const WorkerPacket& packet) {
  if (packet.kind == WorkerPacketKind::kGrow) return link.channel.AnswerGrow(packet.size);
  if (packet.kind != WorkerPacketKind::kUsed) {
    return InvalidArgument(StrCat("a packet of kind ", static_cast<uint32_t>(packet.kind),
                                  " where it was asked for what a model uses"));
  }
  link.is_asked = false;  // also where there is no memory for the answer
  PENSTOCK_ASSIGN_OR_RETURN(const auto body, link.channel.CopyBody(packet));
  PENSTOCK_ASSIGN_OR_RETURN(model.uses_, DecodeDeviceUses(body));
  link.has_told = true;
  return Status::Ok();
}

// Clients' memory that goes.

void DeviceWorker::Forget(const std::shared_ptr<WorkerSession>& process, uint64_t memory) noexcept {
  MutexLock forget(forget_mu_);
  if (IsOver(process)) return;
  pollfd end{process->process().pid_fd(), POLLIN, 0};
  try {
    const Status forgotten = AwaitForgotten(process, memory);
    if (forgotten.ok() || IsOver(process)) return;
    const bool is_ending = forgotten.code() == StatusCode::kUnavailable;
    if (is_ending && poll(&end, 1, kCloseGraceNs / kNsPerMs) > 0) return;
    Kill(process, StrCat("was killed, for it ", forgotten.message()));
  } catch (const std::exception&) {  // there is no memory to say why
    Kill(process, "was killed");     // nor is any needed for so short a text
  }
  poll(&end, 1, kEndGraceNs / kNsPerMs);
}

bool DeviceWorker::IsOver(const std::shared_ptr<WorkerSession>& process) const {
  MutexLock lock(mu_);
  return session_ != process || left_ == process;
}

Status DeviceWorker::AwaitForgotten(const std::shared_ptr<WorkerSession>& process,
                                    uint64_t memory) const {
  const auto closed = [] { return Unavailable("closed a connection"); };
  const PacketSocket& socket = process->process().socket();
  const int64_t asked_ns = NowNs();
  if (!socket.Send({.kind = WorkerPacketKind::kForget, .batch = memory})) return closed();
  bool was_held_up = IsHeldUp(process, asked_ns);
  while (!socket.AwaitPacket(NowNs() + options_.forget_limit_ns)) {
    if (!was_held_up) {
      return DeadlineExceeded(StrCat("took longer than ", Seconds(options_.forget_limit_ns),
                                     " s to close a client's memory"));
    }
    was_held_up = IsHeldUp(process, asked_ns);
  }
  WorkerPacket packet;
  const auto received = socket.Receive(/*wait=*/false, &packet);
  if (received == PacketSocket::Received::kClosed) return closed();
  if (received == PacketSocket::Received::kPacket && packet.kind == WorkerPacketKind::kForgotten &&
      packet.batch == memory) {
    return Status::Ok();
  }
  return InvalidArgument("broke the protocol: no answer where it was to close a client's memory");
}

// In Run and Reaches.

Result<std::shared_ptr<WorkerPart::Link>> DeviceWorker::Current(const Part& part) const {
  MutexLock lock(mu_);
  if (part.state_ == State::kReady && part.link_ != nullptr) return part.link_;
  const std::string& label = part.options_.label;
  if (part.state_ == State::kFailed) {
    return Unavailable(StrCat(label, ": it could not be loaded again on ", options_.device, ": ",
                              part.status_.message()));
  }
  if (!given_up_.ok()) return Unavailable(StrCat(label, ": ", given_up_.message()));
  return Unavailable(StrCat(label, ": ", Say(last_end_), " and is being started again"));
}

// A batch's parts, in the words of the process.
struct DeviceWorker::NamedParts {
  std::vector<WorkerTensorPart> inputs;
  std::vector<WorkerOutputPart> outputs;

  std::vector<size_t> Unread(std::span<const size_t> wanted) const {
    std::vector<size_t> unread;
    for (const WorkerOutputPart& part : outputs) {
      if (!part.is_read_on_host) unread.push_back(wanted[part.wanted]);
    }
    return unread;
  }
};

bool DeviceWorker::Reaches(WorkerPart& part, const ExportedMemory& memory) {
  if (options_.number != memory.device()) return false;  // its process sees no other
  const auto link = Current(part);
  if (!link.ok()) return false;
  if (const auto said = WorkerMemory::Of(memory).AnswerOf(*link)) return *said;
  MutexLock run(part.run_mu_);
  const UnderWay question(part.running_since_ns_);
  const auto said = AskReach(part, *link, memory);
  return said.ok() && *said != 0;
}

Result<uint64_t> DeviceWorker::AskReach(const Part& part, const std::shared_ptr<Link>& link,
                                        const ExportedMemory& memory) {
  const WorkerMemory& known = WorkerMemory::Of(memory);
  if (const auto said = known.AnswerOf(link)) return *said ? known.id() : 0;
  known.Tell(shared_from_this(), link->session);
  const Status sent = link->channel.SendWithBody(
      {.kind = WorkerPacketKind::kReach, .batch = known.id()}, EncodeMemory(memory));
  if (sent.code() == StatusCode::kResourceExhausted) return sent;
  if (!sent.ok()) return EndAsked(part, *link, known, "");
  const int64_t limit_ns = part.options_.execution_limit_ns;
  if (!link->socket.AwaitPacket(limit_ns == 0 ? kNever : NowNs() + limit_ns)) {
    return EndAsked(part, *link, known,
                    StrCat("was killed, for it took longer than ", Seconds(limit_ns),
                           " s to open a client's memory for ", part.options_.label));
  }
  WorkerPacket packet;
  const auto received = link->socket.Receive(/*wait=*/false, &packet);
  if (received == PacketSocket::Received::kClosed) return EndAsked(part, *link, known, "");
  if (received != PacketSocket::Received::kPacket || packet.kind != WorkerPacketKind::kReached ||
      packet.batch != known.id()) {
    return EndAsked(part, *link, known,
                    "was killed, for it broke the protocol: no answer where it was asked for a "
                    "client's memory");
  }
  known.SetAnswer(link, packet.value != 0);
  return packet.value != 0 ? known.id() : 0;
}

// One memory does not spend the restarts of all models.
Status DeviceWorker::EndAsked(const Part& part, const Link& link, const WorkerMemory& memory,
                              const std::string& kill_how) {
  if (memory.CountEnd(link.session)) {
    WriteLog(LogLevel::kError,
             "a client's memory is not asked for any more, for two processes have ended when they "
             "were: requests that lie there go through the host's");
  }
  return AwaitEnd(part, link, kill_how);
}

// Asked again where the process is another than said so before.
Result<uint64_t> DeviceWorker::NameMemory(const Part& part, const std::shared_ptr<Link>& link,
                                          const ExportedMemory& memory) {
  PENSTOCK_ASSIGN_OR_RETURN(const uint64_t id, AskReach(part, link, memory));
  if (id != 0) return id;
  return Unavailable(
      StrCat(part.options_.label, ": ", Say("does not reach a client's memory any more")));
}

Result<DeviceWorker::NamedParts> DeviceWorker::NameParts(const Part& part,
                                                         const std::shared_ptr<Link>& link,
                                                         const BatchParts& parts) {
  NamedParts named;
  for (const InputPart& each : parts.inputs) {
    WorkerTensorPart& made = named.inputs.emplace_back();
    made.part.input = static_cast<uint32_t>(each.input);
    made.host = each.host;
    if (each.device.memory == nullptr) continue;
    PENSTOCK_ASSIGN_OR_RETURN(made.part.memory, NameMemory(part, link, *each.device.memory));
    made.part.offset = each.device.offset;
    made.part.size = each.device.size_bytes;
  }
  for (const OutputPart& each : parts.outputs) {
    PENSTOCK_ASSIGN_OR_RETURN(const uint64_t memory, NameMemory(part, link, *each.device.memory));
    named.outputs.push_back({static_cast<uint32_t>(each.wanted), each.first_row, each.rows,
                             each.is_read_on_host, memory, each.device.offset,
                             each.device.size_bytes});
  }
  return named;
}

Result<WorkerAnswer> DeviceWorker::Run(WorkerPart& part, const WorkerBatch& batch,
                                       const BatchParts& parts, SlabArena* arena) {
  MutexLock run(part.run_mu_);
  PENSTOCK_ASSIGN_OR_RETURN(const auto link, Current(part));
  const UnderWay batch_of_it(part.running_since_ns_);
  PENSTOCK_ASSIGN_OR_RETURN(const NamedParts named, NameParts(part, link, parts));
  WorkerBatch whole = batch;
  whole.input_parts = named.inputs;
  whole.output_parts = named.outputs;
  const Status sent = link->channel.SendRun(whole, ++part.batches_, arena, /*streams=*/false);
  if (sent.code() == StatusCode::kUnavailable) return AwaitEnd(part, *link, "");
  PENSTOCK_RETURN_IF_ERROR(sent);
  const std::string& label = part.options_.label;
  const int64_t limit_ns = part.options_.execution_limit_ns;
  Result<std::vector<WorkerAnswer>> answers = Unavailable("");
  try {
    answers = link->channel.AwaitDone(part.batches_, 1, limit_ns, named.Unread(batch.wanted));
  } catch (const std::exception&) {  // the two are out of step now
    return AwaitEnd(part, *link,
                    StrCat("was killed, for the server ran out of memory for ", label));
  }
  if (answers.ok()) {
    Part& model = *part.options_.model;
    if (NowNs() - model.asked_ns_ >= options_.ask_every_ns) TryAskUses(model);
    return std::move((*answers)[0]);
  }
  switch (answers.status().code()) {
    case StatusCode::kResourceExhausted:
      return Status(answers.status().code(), StrCat(label, ": ", answers.status().message()));
    case StatusCode::kDeadlineExceeded:
      return AwaitEnd(part, *link,
                      StrCat("was killed, for a batch of ", label, " took longer than ",
                             Seconds(limit_ns), " s"));
    case StatusCode::kInvalidArgument:
      return AwaitEnd(
          part, *link,
          StrCat("was killed, for it broke the protocol: ", answers.status().message()));
    default:
      return AwaitEnd(part, *link, "");
  }
}

// Waits a moment for the end of a process that is of no use any more, and says how it came.
// `kill_how` is empty where it is likely to have ended by itself.
Status DeviceWorker::AwaitEnd(const Part& part, const Link& link, const std::string& kill_how) {
  if (!kill_how.empty()) Kill(link.session, kill_how);
  bool is_killed = !kill_how.empty();
  const int64_t begin_ns = NowNs();
  MutexLock lock(mu_);
  while (session_ == link.session && left_ != link.session && NowNs() - begin_ns < kEndGraceNs) {
    if (!is_killed && NowNs() - begin_ns >= kCloseGraceNs) {
      is_killed = true;
      KillLocked(link.session, "was killed, for it closed a connection");
    }
    Clock::System().WaitUntil(changed_, mu_, begin_ns + (is_killed ? kEndGraceNs : kCloseGraceNs));
  }
  if (session_ == link.session) {
    KillLocked(link.session, "was killed, for it closed a connection");  // if it was not
    Leave(link.session);
  }
  const std::string how = session_ == link.session ? kDoesNotEnd : last_end_;
  return Unavailable(StrCat(part.options_.label, ": ", Say(how), " while it ran the batch"));
}

void DeviceWorker::Leave(const std::shared_ptr<WorkerSession>& session) {
  left_ = session;
  session->process().socket().CloseReceiving();  // wakes Forget
  last_end_ = kDoesNotEnd;
  for (const auto& each : parts_) {
    if (each->link_ != nullptr) each->link_->socket.Close();  // wakes who waits there
    each->link_.reset();
    if (each->state_ == State::kFailed || IsFirstLoad(each)) continue;  // that waits for the next
    each->state_ = State::kWanted;
    if (!each->was_ready_) FailLoad(*each);
  }
  changed_.NotifyAll();
}

// For the process does not end.
void DeviceWorker::FailLoad(Part& part) {
  part.state_ = State::kFailed;
  part.status_ = Unavailable(StrCat(part.options_.label, ": ", Say(kDoesNotEnd)));
}

}  // namespace penstock
