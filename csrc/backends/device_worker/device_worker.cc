#include "backends/device_worker/device_worker.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <exception>
#include <thread>
#include <utility>

#include "base/clock.h"
#include "base/strcat.h"
#include "worker/worker_limits.h"

namespace penstock {
namespace {

constexpr int64_t kFloodPauseMs = 10;  // between looks at a log of which lines are left out
constexpr int64_t kSendLimitNs = 2'000 * kNsPerMs;
constexpr int kPacketsAtOnce = 64;
constexpr int kMostEndsWhileMade = 2;

constexpr int64_t kLeaveNs = 800 * kNsPerMs;    // from a kill to when its end is not waited for
constexpr int64_t kRetryNs = 1'000 * kNsPerMs;  // after a shortage of this process's

int64_t After(int64_t limit_ns) {
  return limit_ns == 0 ? kNever : Clock::System().NowNs() + limit_ns;
}

std::string InOwnWords(const std::string& how) {
  return how == StrCat("exited with code ", kDeviceLostExit) ? "lost the device and ended" : how;
}

// Waits for the end of a process that nothing can hurry. Its thread is the only one that does.
void ReapLater(std::shared_ptr<WorkerSession> session) {
  std::thread([session = std::move(session)] {
    while (!session->End()) {
      pollfd end{session->process().pid_fd(), POLLIN, 0};
      poll(&end, 1, -1);
    }
  }).detach();
}

}  // namespace

DeviceWorker::DeviceWorker(DeviceWorkerOptions options)
    : options_(std::move(options)), budget_(options_.restarts), limit_ns_(kNever) {
  thread_ = Thread("ps-device", [this] { Watch(); });
}

DeviceWorker::~DeviceWorker() {
  {
    MutexLock lock(mu_);
    is_stopping_ = true;
    changed_.NotifyAll();
  }
  wake_.Set();
  thread_.Join();
}

std::string DeviceWorker::Say(std::string_view how) const {
  return StrCat("the worker of ", options_.device, " ", how);
}

void DeviceWorker::WriteLog(LogLevel level, std::string_view text) const {
  const std::array<LogField, 1> about = {{{"device", options_.device}}};
  Log(level, "gpu", text, about);
}

// On the thread that watches.

void DeviceWorker::Watch() noexcept {
  while (AwaitWork()) {
    std::string how;
    try {
      auto session = WorkerSession::Start(options_.launch);
      how = session.ok() ? LiveOnce(*session) : std::string(session.status().message());
    } catch (const std::exception& error) {
      how = StrCat("could not be watched: ", error.what());
    }
    EndSession(how);
    if (!AfterEnd(how)) return;
  }
}

// Until something is to be made. False: the worker is to stop.
bool DeviceWorker::AwaitWork() {
  MutexLock lock(mu_);
  while (!is_stopping_) {
    if (!given_up_.ok() && NowNs() >= budget_->spent_until_ns()) {
      given_up_ = Status();
      is_restart_ = true;
    }
    if (given_up_.ok() && std::any_of(parts_.begin(), parts_.end(), IsWanted)) return true;
    Clock::System().WaitUntil(changed_, mu_, given_up_.ok() ? kNever : budget_->spent_until_ns());
  }
  return false;
}

// From a process's start to its end, which it returns.
std::string DeviceWorker::LiveOnce(const std::shared_ptr<WorkerSession>& session) {
  limit_ns_ = kNever;
  idle_ns_ = kNever;
  is_log_open_ = true;
  is_worn_ = false;
  {
    MutexLock lock(mu_);
    session_ = session;
    killed_ns_ = kNever;
    const bool is_restart = is_restart_ && std::any_of(parts_.begin(), parts_.end(), WasLost);
    if (is_restart) restarts_.fetch_add(1, std::memory_order_relaxed);
    is_restart_ = false;
  }
  LineRelay lines(options_.lines,
                  [this](LogLevel level, std::string_view line) { WriteLog(level, line); });
  MakeNext(session);  // before it can have ended: whatever ends it, something was being made
  std::optional<std::string> how;
  while (!(how = session->End())) {
    try {
      TakeTurn(session, &lines);
      if (LeaveIfLate(session)) {
        ReapLater(session);
        return kDoesNotEnd;
      }
    } catch (const std::exception&) {  // out of memory: whoever waits is told all the same
      Kill(session, "was killed, for the server could not handle what it sent");
    }
  }
  try {
    ReadReply();  // FAILED may be its last word
    is_log_open_ = is_log_open_ && session->ReadLog(&lines, NowNs());
    lines.Finish(NowNs());
  } catch (const std::exception& error) {
    WriteLog(LogLevel::kError, error.what());
  }
  return InOwnWords(*how);
}

void DeviceWorker::TakeTurn(const std::shared_ptr<WorkerSession>& session, LineRelay* lines) {
  MakeNext(session);
  WaitForEvent(*session, lines->is_flooded());
  is_log_open_ = is_log_open_ && session->ReadLog(lines, NowNs());
  lines->Tick(NowNs());
  ReadReply();
  if (NowNs() < limit_ns_) return;
  Kill(session, late_how_);
  limit_ns_ = kNever;
}

// True: this worker stops, and does not wait for the process.
bool DeviceWorker::LeaveIfLate(const std::shared_ptr<WorkerSession>& session) {
  MutexLock lock(mu_);
  if (NowNs() >= LeaveNs(session)) {
    if (left_ != session) {
      Leave(session);
    } else {
      for (const auto& part : parts_) {
        if (IsFirstLoad(part)) FailLoad(*part);
      }
      changed_.NotifyAll();
    }
  }
  return left_ == session && is_stopping_;
}

// When a killed process is left; after that, when the loads fail that wait for its end.
int64_t DeviceWorker::LeaveNs(const std::shared_ptr<WorkerSession>& session) const {
  if (killed_ns_ == kNever) return kNever;
  if (left_ != session) return killed_ns_ + kLeaveNs;
  const bool is_waited_for = std::any_of(parts_.begin(), parts_.end(), IsFirstLoad);
  return is_waited_for ? killed_ns_ + options_.end_limit_ns : kNever;
}

void DeviceWorker::WaitForEvent(WorkerSession& session, bool is_flooded) const {
  std::array<pollfd, 4> fds{};
  size_t count = 0;
  fds[count++] = {session.process().pid_fd(), POLLIN, 0};
  fds[count++] = {wake_.fd(), POLLIN, 0};
  if (is_log_open_ && !is_flooded) fds[count++] = {session.process().log_fd(), POLLIN, 0};
  if (making_ != nullptr && is_link_open_) fds[count++] = {link_->socket.fd(), POLLIN, 0};
  int64_t timeout_ms = -1;
  int64_t until_ns = std::min({limit_ns_, leave_ns_, idle_ns_});
  if (making_ == nullptr) until_ns = std::min(until_ns, retry_ns_);
  if (until_ns != kNever) {
    timeout_ms = std::clamp<int64_t>((until_ns - NowNs()) / kNsPerMs + 1, 0, 3'600'000);
  }
  if (is_flooded) timeout_ms = timeout_ms < 0 ? kFloodPauseMs : std::min(timeout_ms, kFloodPauseMs);
  poll(fds.data(), count, static_cast<int>(timeout_ms));
  wake_.Clear();
}

// The first part that is wanted, and can be made. Instances of a model that has failed fail with it.
std::shared_ptr<WorkerPart> DeviceWorker::TakeNext() {
  MutexLock lock(mu_);
  // A process that is to end is not to blame for what is begun there.
  if (killed_ns_ != kNever || session_ == left_ || retry_ns_ != kNever) return nullptr;
  for (const auto& part : parts_) {
    if (part->state_ != State::kWanted) continue;
    const Part* model = part->options_.model.get();
    if (model == nullptr || model->state_ == State::kReady) {
      part->state_ = State::kMaking;
      return part;
    }
    if (model->state_ != State::kFailed && model->state_ != State::kGone) continue;
    part->state_ = State::kFailed;
    part->status_ =
        model->state_ == State::kGone ? Unavailable("its model is gone") : model->status_;
    changed_.NotifyAll();
  }
  return nullptr;
}

void DeviceWorker::MakeNext(const std::shared_ptr<WorkerSession>& session) {
  if (NowNs() >= retry_ns_) retry_ns_ = kNever;
  {
    MutexLock lock(mu_);
    if (is_stopping_ && killed_ns_ == kNever) KillLocked(session, "was stopped");
    if (making_ != nullptr && making_->state_ != State::kMaking) making_.reset();  // it was removed
    EndIfIdle(session);
    leave_ns_ = LeaveNs(session);
    if (session == left_) return;
  }
  while (making_ == nullptr) {
    if (!BeginMaking(session)) return;
  }
}

// Once it has had no parts for a while. A load that comes before is taken; one that comes after waits
// for the end.
void DeviceWorker::EndIfIdle(const std::shared_ptr<WorkerSession>& session) {
  if (!parts_.empty() || killed_ns_ != kNever) {
    idle_ns_ = kNever;
    return;
  }
  if (idle_ns_ == kNever) idle_ns_ = NowNs() + (is_worn_ ? 0 : options_.linger_ns);
  if (NowNs() < idle_ns_) return;
  idle_ns_ = kNever;
  KillLocked(session, "was ended, for it has no models");
}

// False: there is nothing to be made. What fails on the spot is not being made any more.
bool DeviceWorker::BeginMaking(const std::shared_ptr<WorkerSession>& session) {
  limit_ns_ = kNever;
  making_ = TakeNext();
  if (making_ == nullptr) return false;
  making_->making_since_ns_ = NowNs();
  const WorkerPartOptions& options = making_->options_;
  limit_ns_ = After(options.load_limit_ns);
  late_how_ = StrCat("was killed, for it took longer than ", Seconds(options.load_limit_ns),
                     " s to load ", options.label);
  auto ends = PacketSocket::MakeEnds();
  if (!ends.ok()) {
    EndForWant(ends.status());
    return true;
  }
  link_ = std::make_shared<Link>(session, std::move(ends->first));
  link_->socket.SetSendLimit(kSendLimitNs);
  is_link_open_ = true;
  {
    MutexLock lock(mu_);
    making_->link_ = link_;
  }
  const bool is_model = options.model == nullptr;
  WorkerPacket packet{.kind = is_model ? WorkerPacketKind::kLoad : WorkerPacketKind::kStart,
                      .batch = is_model ? making_->id_ : options.model->id_};
  Status sent = link_->channel.Begin();
  if (sent.ok()) sent = link_->channel.SendWithBody(packet, options.document);
  if (sent.code() == StatusCode::kResourceExhausted) {
    EndForWant(sent);
    return true;
  }
  const bool is_open =
      session->process().socket().Send({.kind = WorkerPacketKind::kOpen}, ends->second.get());
  if (!sent.ok() || !is_open) AwaitOwnEnd("was killed, for it takes no model");
  return true;
}

// This process has no descriptor or memory for a connection: what was there before is made later.
void DeviceWorker::EndForWant(const Status& status) {
  bool is_again = false;
  {
    MutexLock lock(mu_);
    is_again = making_->was_ready_;
  }
  if (is_again) retry_ns_ = After(kRetryNs);
  EndMaking(is_again ? State::kWanted : State::kFailed, status);
}

// It is likely to be ending by itself, and how is worth a moment.
void DeviceWorker::AwaitOwnEnd(const std::string& late_how) {
  limit_ns_ = std::min(limit_ns_, NowNs() + kCloseGraceNs);
  late_how_ = late_how;
}

void DeviceWorker::ReadReply() {
  WorkerPacket packet;
  for (int i = 0; i < kPacketsAtOnce && making_ != nullptr && is_link_open_; ++i) {
    const auto received = link_->socket.Receive(/*wait=*/false, &packet);
    if (received == PacketSocket::Received::kNothing) return;
    if (received == PacketSocket::Received::kClosed) {
      is_link_open_ = false;
      AwaitOwnEnd("was killed, for it closed a connection");
      return;
    }
    const Status status = received == PacketSocket::Received::kGarbage
                              ? InvalidArgument("a packet of another size")
                              : HandlePacket(packet);
    if (status.ok()) continue;
    Kill(link_->session, StrCat("was killed, for it broke the protocol: ", status.message()));
    return;
  }
}

Status DeviceWorker::HandlePacket(const WorkerPacket& packet) {
  const bool is_model = making_->options_.model == nullptr;
  if (packet.kind == WorkerPacketKind::kGrow) return link_->channel.AnswerGrow(packet.size);
  if (packet.kind == WorkerPacketKind::kDescribed && is_model) return Describe(packet);
  if (packet.kind == WorkerPacketKind::kReady && !is_model) {
    link_->socket.SetReceiveLimit(making_->options_.execution_limit_ns);
    TryAskUses(*making_->options_.model);  // is known when somebody first looks
    EndMaking(State::kReady, Status());
    return Status::Ok();
  }
  if (packet.kind == WorkerPacketKind::kFailed) return HandleFailed(packet);
  return InvalidArgument(StrCat("a packet of kind ", static_cast<uint32_t>(packet.kind),
                                " while a model was being loaded"));
}

Status DeviceWorker::HandleFailed(const WorkerPacket& packet) {
  PENSTOCK_ASSIGN_OR_RETURN(const auto body, link_->channel.CopyBody(packet));
  const bool is_code =
      packet.value > 0 && packet.value <= static_cast<uint32_t>(StatusCode::kUnauthenticated);
  const auto code = is_code ? static_cast<StatusCode>(packet.value) : StatusCode::kInternal;
  const std::string_view text(reinterpret_cast<const char*>(body.data()), body.size());
  const Status status(code, std::string(text.substr(0, kMaxWorkerTextBytes)));
  // What is wrong with a model leaves the process as it was.
  is_worn_ |= code != StatusCode::kInvalidArgument && code != StatusCode::kNotFound;
  bool is_again = false;
  bool serves = false;
  {
    MutexLock lock(mu_);
    is_again = making_->was_ready_;
    serves = std::any_of(parts_.begin(), parts_.end(), Serves);
  }
  // A device that recovers, or that this load has lost: another process may have better luck. One that
  // serves would say that it is lost. A model that there is no memory for is left to the others.
  const bool is_lost = code == StatusCode::kUnavailable && (is_again || !serves);
  const std::string how = StrCat("was killed, for it could not load ", making_->options_.label,
                                 is_again ? " again: " : ": ", status.message());
  const auto session = link_->session;
  EndMaking(is_lost && is_again ? State::kWanted : State::kFailed, status);
  if (is_lost) Kill(session, how);
  return Status::Ok();
}

Status DeviceWorker::Describe(const WorkerPacket& packet) {
  PENSTOCK_ASSIGN_OR_RETURN(const auto body, link_->channel.CopyBody(packet));
  PENSTOCK_ASSIGN_OR_RETURN(auto description, DecodeDeviceDescription(body));
  bool is_again = false;
  {
    MutexLock lock(mu_);
    is_again = making_->was_ready_;
  }
  const bool is_as_before = !is_again || description == making_->description_;
  if (!is_again) making_->description_ = std::move(description);  // read once Add has returned
  if (is_as_before) {
    EndMaking(State::kReady, Status());
  } else {
    EndMaking(State::kFailed,
              FailedPrecondition(StrCat(making_->options_.label,
                                        ": the model's file has changed: load it again")));
  }
  return Status::Ok();
}

void DeviceWorker::EndMaking(State state, const Status& status) {
  std::string lost;  // what was there before, and is no more
  making_->making_since_ns_ = kNever;
  if (state == State::kReady && making_->options_.model == nullptr) is_worn_ = false;
  {
    MutexLock lock(mu_);
    if (making_->state_ == State::kMaking) {
      making_->state_ = state;
      making_->status_ = status;
      if (state == State::kFailed && making_->was_ready_) lost = making_->options_.label;
      if (state != State::kReady) making_->link_.reset();
      making_->was_ready_ |= state == State::kReady;
      making_->ends_while_made_ = 0;
    }
    changed_.NotifyAll();
  }
  if (!lost.empty()) {
    WriteLog(LogLevel::kError, StrCat(lost, " could not be loaded again: ", status.message()));
  }
  making_.reset();
  link_.reset();
  limit_ns_ = kNever;
}

void DeviceWorker::EndPart(Part& part, const std::string& how) {
  const bool was_making = part.state_ == State::kMaking;
  if (part.link_ != nullptr) part.link_->socket.Close();  // wakes Run, whoever holds the other end
  part.link_.reset();
  part.making_since_ns_ = kNever;
  if (was_making && part.was_ready_) ++part.ends_while_made_;
  part.state_ = State::kWanted;
  const bool is_blamed =
      was_making && (!part.was_ready_ || part.ends_while_made_ >= kMostEndsWhileMade);
  if (!is_blamed && session_ != nullptr) return;
  if (part.was_ready_ && !is_blamed) return;  // it could not even be started
  part.state_ = State::kFailed;
  const bool says_when = !was_making || how.find(part.options_.label) != std::string::npos;
  part.status_ = Unavailable(
      StrCat(part.options_.label, ": ", Say(how), says_when ? "" : " while it loaded the model"));
}

void DeviceWorker::EndSession(const std::string& how) {
  making_.reset();
  link_.reset();
  MutexLock lock(mu_);
  for (const auto& part : parts_) {
    if (part->state_ != State::kFailed) EndPart(*part, how);
  }
  // Wakes Forget, whoever holds the other end.
  if (session_ != nullptr) session_->process().socket().CloseReceiving();
  session_.reset();
  left_.reset();
  last_end_ = how;
  changed_.NotifyAll();
}

// False: the worker is to stop.
bool DeviceWorker::AfterEnd(const std::string& how) {
  std::optional<int64_t> delay_ns = 0;
  {
    MutexLock lock(mu_);
    if (is_stopping_) return false;
    // A first load that fails has said so to who waits for it.
    const bool has_lost = std::any_of(parts_.begin(), parts_.end(), WasLost);
    if (!has_lost) return true;
    delay_ns = budget_->OnEnd(NowNs());
  }
  if (!delay_ns) {
    GiveUp(how);
    return true;
  }
  WriteLog(LogLevel::kError,
           StrCat(Say(how), "; it is started again in ", Seconds(*delay_ns), " s"));
  WaitBeforeRestart(*delay_ns);
  is_restart_ = true;
  return true;
}

// A device may be there again: it is reset, or whoever has it gives it back.
void DeviceWorker::GiveUp(const std::string& how) {
  const uint32_t most = options_.restarts.max_restarts;
  const std::string text =
      StrCat(Say(how),
             most == 0 ? std::string("; it is not started again before")
                       : StrCat("; it has ended more than ", most, " times within ",
                                Seconds(options_.restarts.window_ns),
                                " s, and is started again when they are over, or when"),
             " a model of it is loaded");
  WriteLog(LogLevel::kError, text);
  MutexLock lock(mu_);
  given_up_ = Unavailable(text);
  for (const auto& part : parts_) {
    if (!IsFirstLoad(part)) continue;
    part->state_ = State::kFailed;
    part->status_ = given_up_;
  }
  changed_.NotifyAll();
}

void DeviceWorker::WaitBeforeRestart(int64_t delay_ns) {
  const int64_t until_ns = NowNs() + delay_ns;
  MutexLock lock(mu_);
  while (!is_stopping_ && NowNs() < until_ns) Clock::System().WaitUntil(changed_, mu_, until_ns);
}

}  // namespace penstock
