#include "worker/worker.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/strcat.h"
#include "worker/worker_limits.h"

namespace penstock {
namespace {

constexpr int64_t kFloodPauseMs = 10;  // between looks at a log of which lines are left out
constexpr int64_t kStopGraceNs = 5'000 * kNsPerMs;   // to end by itself
constexpr int64_t kCloseGraceNs = 1'000 * kNsPerMs;  // from a closed connection to the end
constexpr int64_t kKillGraceNs = 10'000 * kNsPerMs;  // of a process that the kernel holds on to
constexpr int64_t kLookMs = 250;  // between looks at whether a decoupled model is silent
constexpr int kPacketsAtOnce = 64;

int64_t NowNs() { return Clock::System().NowNs(); }

int64_t After(int64_t limit_ns) { return limit_ns == 0 ? kNever : NowNs() + limit_ns; }

Result<std::shared_ptr<WorkerSession>> StartSession(const WorkerLaunch& launch) {
  PENSTOCK_ASSIGN_OR_RETURN(auto session, WorkerSession::Start(launch));
  const Status begun = session->channel().Begin();
  // UNAVAILABLE: it has ended already, and whoever watches it will see how.
  if (!begun.ok() && begun.code() != StatusCode::kUnavailable) return begun;
  return session;
}

}  // namespace

Result<std::unique_ptr<Worker>> Worker::Start(WorkerOptions options) {
  std::unique_ptr<Worker> worker(new Worker(std::move(options)));
  worker->thread_ = Thread("ps-worker", [raw = worker.get()] { raw->Watch(); });
  PENSTOCK_RETURN_IF_ERROR(worker->AwaitDescribed());
  return worker;
}

Status Worker::AwaitDescribed() {
  MutexLock lock(mu_);
  while (phase_ == Phase::kStarting) changed_.Wait(mu_);
  return phase_ == Phase::kFailed ? status_ : Status::Ok();
}

Worker::Worker(WorkerOptions options) : options_(std::move(options)), budget_(options_.restarts) {}

Worker::~Worker() {
  {
    MutexLock lock(mu_);
    is_stopping_ = true;
  }
  wake_.Set();
  thread_.Join();
}

Status Worker::Activate(const std::string& name) {
  MutexLock lock(mu_);
  instance_ = name;
  wake_.Set();
  while (phase_ == Phase::kDescribed || phase_ == Phase::kActivating) changed_.Wait(mu_);
  return phase_ == Phase::kReady ? Status::Ok() : status_;
}

// Where answers come at any time, the thread takes them; else Run does.
bool Worker::reads_packets() const { return phase() != Phase::kReady || signature_.is_decoupled; }

bool Worker::has_streams() const {
  MutexLock lock(mu_);
  return !streams_.empty();
}

std::string Worker::LogName() const {
  MutexLock lock(mu_);
  return instance_.empty() ? options_.log_name : instance_;
}

bool Worker::is_ready() const { return phase() == Phase::kReady; }

bool Worker::has_failed() const { return phase() == Phase::kFailed; }

std::string Worker::Say(std::string_view what) const { return StrCat(options_.label, ": ", what); }

void Worker::WriteLog(LogLevel level, std::string_view text) const {
  const std::array<LogField, 2> about = {
      {{"model", options_.model}, {"version", options_.version}}};
  Log(level, LogName(), text, about);
}

Worker::Phase Worker::phase() const {
  MutexLock lock(mu_);
  return phase_;
}

bool Worker::is_stopping() const {
  MutexLock lock(mu_);
  return is_stopping_;
}

void Worker::SetPhase(Phase phase, Status status) {
  MutexLock lock(mu_);
  phase_ = phase;
  status_ = std::move(status);
  was_ready_ |= phase == Phase::kReady;
  changed_.NotifyAll();
}

// On the thread that watches.

void Worker::Watch() noexcept {
  std::string how;
  do {
    try {
      auto session = StartSession(options_.launch);
      how = session.ok() ? LiveOnce(*session) : std::string(session.status().message());
    } catch (const std::exception& error) {
      how = StrCat("could not be watched: ", error.what());
    }
  } while (AfterEnd(how));
}

void Worker::BeginSession(std::shared_ptr<WorkerSession> session) {
  limit_ns_ = After(options_.load_limit_ns);
  late_how_ =
      StrCat("was killed, for it took longer than ", Seconds(options_.load_limit_ns), " s to load");
  is_log_open_ = is_socket_open_ = true;
  failure_ = Status();
  MutexLock lock(mu_);
  session_ = std::move(session);
  if (was_ready_) phase_ = Phase::kDown;
}

// From a process's start to its end, which it returns.
std::string Worker::LiveOnce(const std::shared_ptr<WorkerSession>& session) {
  BeginSession(session);
  LineRelay lines(options_.lines,
                  [this](LogLevel level, std::string_view line) { WriteLog(level, line); });
  std::optional<std::string> how;
  while (!(how = session->End())) {
    try {
      TakeTurn(*session, &lines);
    } catch (const std::exception&) {  // out of memory: whoever waits is told all the same
      session->Kill("was killed, for the server could not handle what it sent");
    }
  }
  session->process()
      .socket()
      .Close();  // wakes Run, where something else holds the worker's end open
  ReadRest(*session, &lines, *how);
  last_line_ = lines.last_line();
  MutexLock lock(mu_);
  session_.reset();
  if (phase_ == Phase::kReady) phase_ = Phase::kDown;  // before anybody is told that it has ended
  last_end_ = *how;
  changed_.NotifyAll();
  return *std::move(how);
}

void Worker::TakeTurn(WorkerSession& session, LineRelay* lines) {
  WaitForEvent(session, lines->is_flooded());
  is_log_open_ = is_log_open_ && session.ReadLog(lines, NowNs());
  lines->Tick(NowNs());
  ReadPackets(session);
  LookAtStreams();
  is_socket_full_ = !SendPending(session);
  TakeStep(session);
  if (NowNs() < limit_ns_) return;
  session.Kill(late_how_);
  limit_ns_ = kNever;
}

void Worker::ReadRest(WorkerSession& session, LineRelay* lines, const std::string& how) {
  try {
    ReadPackets(session);  // FAILED may be its last word
    is_log_open_ = is_log_open_ && session.ReadLog(lines, NowNs());
    lines->Finish(NowNs());
  } catch (const std::exception& error) {
    WriteLog(LogLevel::kError, error.what());
  }
  EndStreams(how);
}

void Worker::WaitForEvent(WorkerSession& session, bool is_flooded) const {
  const auto& process = session.process();
  std::array<pollfd, 4> fds{};
  size_t count = 0;
  fds[count++] = {process.pid_fd(), POLLIN, 0};
  fds[count++] = {wake_.fd(), POLLIN, 0};
  if (is_log_open_ && !is_flooded) fds[count++] = {process.log_fd(), POLLIN, 0};
  if (reads_packets() && is_socket_open_) {
    const short out = is_socket_full_ ? POLLOUT : 0;
    fds[count++] = {process.socket().fd(), static_cast<short>(POLLIN | out), 0};
  }
  int64_t timeout_ms = -1;
  if (limit_ns_ != kNever) {
    timeout_ms = std::clamp<int64_t>((limit_ns_ - NowNs()) / kNsPerMs + 1, 0, 3'600'000);
  }
  if (has_streams()) timeout_ms = timeout_ms < 0 ? kLookMs : std::min(timeout_ms, kLookMs);
  if (is_flooded) timeout_ms = timeout_ms < 0 ? kFloodPauseMs : std::min(timeout_ms, kFloodPauseMs);
  poll(fds.data(), count, static_cast<int>(timeout_ms));
  wake_.Clear();
}

void Worker::ReadPackets(WorkerSession& session) {
  WorkerPacket packet;
  // No more at once: whatever it sends, it can be stopped and its limits hold.
  for (int i = 0; i < kPacketsAtOnce && reads_packets() && is_socket_open_; ++i) {
    const auto received = session.process().socket().Receive(/*wait=*/false, &packet);
    if (received == PacketSocket::Received::kNothing) return;
    if (received == PacketSocket::Received::kClosed) {
      is_socket_open_ = false;
      if (is_stopping()) return;
      // It has said all; where it does not end on its own it is of no use.
      if (limit_ns_ == kNever || limit_ns_ > NowNs() + kCloseGraceNs) {
        limit_ns_ = NowNs() + kCloseGraceNs;
        late_how_ = "was killed, for it closed its connection";
      }
      return;
    }
    const Status status = received == PacketSocket::Received::kGarbage
                              ? InvalidArgument("a packet of another size")
                              : HandlePacket(session, packet);
    if (!status.ok()) {
      session.Kill(StrCat("was killed, for it broke the protocol: ", status.message()));
      return;
    }
  }
}

Status Worker::HandlePacket(WorkerSession& session, const WorkerPacket& packet) {
  if (phase() == Phase::kReady) return HandleStreamPacket(session, packet);
  switch (packet.kind) {
    case WorkerPacketKind::kGrow:
      return session.channel().AnswerGrow(packet.size);
    case WorkerPacketKind::kDescribed:
      return Describe(session, packet);
    case WorkerPacketKind::kReady:
      if (phase() != Phase::kActivating) break;
      session.process().socket().SetReceiveLimit(options_.execution_limit_ns);
      limit_ns_ = kNever;
      SetPhase(Phase::kReady);
      return Status::Ok();
    case WorkerPacketKind::kFailed: {
      PENSTOCK_ASSIGN_OR_RETURN(const std::vector<uint8_t> body,
                                session.channel().CopyBody(packet));
      failure_ = InvalidArgument(Say(std::string(body.begin(), body.end())));
      return Status::Ok();
    }
    default:
      break;
  }
  return InvalidArgument(StrCat("a packet of kind ", static_cast<uint32_t>(packet.kind),
                                " while its model was being loaded"));
}

Status Worker::Describe(WorkerSession& session, const WorkerPacket& packet) {
  PENSTOCK_ASSIGN_OR_RETURN(const std::vector<uint8_t> body, session.channel().CopyBody(packet));
  PENSTOCK_ASSIGN_OR_RETURN(WorkerSignature signature, DecodeSignature(body));
  limit_ns_ = kNever;
  MutexLock lock(mu_);
  if (phase_ == Phase::kStarting) {
    signature_ = std::move(signature);
  } else if (!(signature == signature_)) {
    has_changed_ = true;  // what it is given is checked against the first description
    return InvalidArgument("it describes another model than before");
  }
  phase_ = Phase::kDescribed;
  changed_.NotifyAll();
  return Status::Ok();
}

// What is to be done next with the process, if anything.
void Worker::TakeStep(WorkerSession& session) {
  std::string instance;
  {
    MutexLock lock(mu_);
    if (!is_stopping_ && phase_ == Phase::kDescribed) instance = instance_;
    if (!instance.empty()) phase_ = Phase::kActivating;
  }
  if (!instance.empty()) {
    limit_ns_ = After(options_.load_limit_ns);
    // Where that fails the process has ended, or is about to.
    const Status sent =
        session.channel().SendWithBody({.kind = WorkerPacketKind::kStart}, instance);
    if (!sent.ok()) session.Kill(StrCat("was killed: ", sent.message()));
  }
  if (is_stopping()) Stop(session);
}

void Worker::Stop(WorkerSession& session) {
  if (phase() != Phase::kReady) {
    session.Kill("was stopped");
  } else if (limit_ns_ == kNever) {
    session.process().socket().Close();
    limit_ns_ = After(kStopGraceNs);
    late_how_ = "was killed, for it did not stop";
  }
}

// Of a process that ended by itself the last line is most likely why: an interpreter's error, say.
// One that crashed may have left anything there.
Status Worker::EndedWhileLoading(const std::string& ended, std::string_view how) const {
  std::string text = ended + " while it loaded the model";
  if (how.starts_with("exited") && !last_line_.empty()) text += ": " + last_line_;
  return Unavailable(std::move(text));
}

// Whether another process is to be started.
bool Worker::AfterEnd(const std::string& how) {
  bool was_ready = false;
  {
    MutexLock lock(mu_);
    if (is_stopping_) return false;
    was_ready = was_ready_;
  }
  const std::string ended = Say(StrCat("its worker ", how));
  if (!was_ready) {
    SetPhase(Phase::kFailed, failure_.ok() ? EndedWhileLoading(ended, how) : failure_);
    return false;
  }
  if (has_changed_) {
    const std::string text = Say("the model's file has changed: load it again");
    WriteLog(LogLevel::kError, text);
    SetPhase(Phase::kFailed, Unavailable(text));
    return false;
  }
  const std::optional<int64_t> delay_ns = budget_.OnEnd(NowNs());
  if (!failure_.ok()) WriteLog(LogLevel::kError, failure_.message());
  if (!delay_ns) {
    const auto& options = budget_.options();
    const std::string text = StrCat(ended, "; it is not started again, for it has ended more than ",
                                    options.max_restarts, " times within ",
                                    Seconds(options.window_ns), " s: load the model again");
    WriteLog(LogLevel::kError, text);
    SetPhase(Phase::kFailed, Unavailable(text));
    return false;
  }
  WriteLog(LogLevel::kError, StrCat(ended, "; it is started again in ", Seconds(*delay_ns), " s"));
  SetPhase(Phase::kDown, Unavailable(StrCat(ended, " and is being started again")));
  if (!WaitBeforeRestart(*delay_ns)) return false;
  restarts_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

// False: the worker is to stop.
bool Worker::WaitBeforeRestart(int64_t delay_ns) {
  const int64_t until_ns = NowNs() + delay_ns;
  while (!is_stopping()) {
    const int64_t left_ms = (until_ns - NowNs()) / kNsPerMs;
    if (left_ms <= 0) return true;
    pollfd wake{wake_.fd(), POLLIN, 0};
    poll(&wake, 1, static_cast<int>(left_ms));
    wake_.Clear();
  }
  return false;
}

// In Run.

Result<std::vector<WorkerAnswer>> Worker::Run(const WorkerBatch& batch, SlabArena* arena) {
  MutexLock run(run_mu_);
  PENSTOCK_ASSIGN_OR_RETURN(const auto session, Current());
  PENSTOCK_RETURN_IF_ERROR(Send(*session, batch, arena));
  return Await(*session, std::max<size_t>(batch.requests.size(), 1));
}

Result<std::shared_ptr<WorkerSession>> Worker::Current() const {
  MutexLock lock(mu_);
  if (phase_ == Phase::kReady && session_ != nullptr) return session_;
  if (!status_.ok()) return status_;
  return Unavailable(Say("its worker is being started"));
}

Status Worker::Send(WorkerSession& session, const WorkerBatch& batch, SlabArena* arena) {
  // A decoupled model writes one response after the other, whenever it likes.
  Status status = session.channel().SendRun(batch, ++batches_, arena, signature_.is_decoupled);
  if (status.code() != StatusCode::kUnavailable) return status;
  return AwaitEnd(session, StrCat("was killed, for ", status.message()));
}

Result<std::vector<WorkerAnswer>> Worker::Await(WorkerSession& session, size_t expected) {
  auto answers = session.channel().AwaitDone(batches_, expected, options_.execution_limit_ns);
  if (answers.ok()) return answers;
  switch (answers.status().code()) {
    case StatusCode::kDeadlineExceeded:
      return AwaitEnd(session, StrCat("was killed, for a batch took longer than ",
                                      Seconds(options_.execution_limit_ns), " s"));
    case StatusCode::kUnavailable:
      return AwaitEnd(session, "");
    case StatusCode::kInvalidArgument:
      return AwaitEnd(
          session, StrCat("was killed, for it broke the protocol: ", answers.status().message()));
    default:
      return answers;
  }
}

// Waits for the end of a process that is of no use any more, and says how it came. `kill_how` is
// empty where it is likely to have ended by itself.
Status Worker::AwaitEnd(WorkerSession& session, const std::string& kill_how) {
  if (!kill_how.empty()) session.Kill(kill_how);
  const int64_t begin_ns = NowNs();
  bool is_killed = !kill_how.empty();
  MutexLock lock(mu_);
  while (session_.get() == &session && NowNs() - begin_ns < kKillGraceNs) {
    const int64_t wait_ns = is_killed ? kKillGraceNs : kCloseGraceNs;
    Clock::System().WaitUntil(changed_, mu_, begin_ns + wait_ns);
    if (!is_killed && NowNs() - begin_ns >= kCloseGraceNs) {
      is_killed = true;
      session.Kill("was killed, for it closed its connection");
    }
  }
  const std::string how = session_.get() == &session ? "does not end" : last_end_;
  return Unavailable(Say(StrCat("its worker ", how, " while it ran the batch")));
}

}  // namespace penstock
