#include "worker/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s
#include <spawn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>
#include <utility>

#include "base/strcat.h"
#include "worker/slab.h"

extern char** environ;  // NOLINT(readability-redundant-declaration)

namespace penstock {
namespace {

constexpr int kLowestOwnFd = 10;  // above every number that the child's descriptors get
constexpr int kLogPipeBytes = 1 << 20;
constexpr timeval kSendLimit{2, 0};
constexpr int kEndLimitMs = 10'000;  // of a process that was asked to end
constexpr int64_t kNsPerS = 1'000'000'000;

Status CannotStart(int error) {
  return Unavailable(StrCat("a worker cannot be started: ", strerrordesc_np(error)));
}

// The same descriptor under a number that no dup2 of the child's takes.
OwnedFd Above(int fd) {
  OwnedFd low(fd);
  return OwnedFd(fcntl(fd, F_DUPFD_CLOEXEC, kLowestOwnFd));
}

// Two ends, the server's and the child's.
struct Ends {
  OwnedFd ours;
  OwnedFd theirs;
  bool ok() const { return ours.get() >= 0 && theirs.get() >= 0; }
};

Ends MakeSocket() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) return {};
  Ends ends;
  ends.ours = Above(fds[0]);
  ends.theirs = Above(fds[1]);
  return ends;
}

Ends MakePipe(bool we_read) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return {};
  Ends ends;
  ends.ours = Above(fds[we_read ? 0 : 1]);
  ends.theirs = Above(fds[we_read ? 1 : 0]);
  return ends;
}

// Neither the server's settings nor its way to speak to systemd are a model's.
std::vector<char*> ChildEnvironment() {
  std::vector<char*> kept;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (text.starts_with("PENSTOCK_") || text.starts_with("NOTIFY_SOCKET=") ||
        text.starts_with("WATCHDOG_") || text.starts_with("LISTEN_")) {
      continue;
    }
    kept.push_back(*entry);
  }
  kept.push_back(nullptr);
  return kept;
}

// glibc 2.36 declares pidfd_open without C linkage.
int OpenPidFd(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

class SpawnSetup {
 public:
  SpawnSetup() {
    posix_spawn_file_actions_init(&actions_);
    posix_spawnattr_init(&attributes_);
  }
  ~SpawnSetup() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  SpawnSetup(const SpawnSetup&) = delete;
  SpawnSetup& operator=(const SpawnSetup&) = delete;

  void Add(int fd, int number) { posix_spawn_file_actions_adddup2(&actions_, fd, number); }

  int Spawn(const std::vector<std::string>& arguments, pid_t* pid) {
    posix_spawn_file_actions_addopen(&actions_, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addclosefrom_np(&actions_, kWorkerStartFd + 1);
    sigset_t all;
    sigset_t none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    std::vector<char*> argv;
    argv.reserve(arguments.size() + 1);
    for (const std::string& argument : arguments) {
      argv.push_back(const_cast<char*>(argument.c_str()));
    }
    argv.push_back(nullptr);
    std::vector<char*> child_environment = ChildEnvironment();
    return posix_spawn(pid, argv[0], &actions_, &attributes_, argv.data(),
                       child_environment.data());
  }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

// How many processes the kernel has killed for want of memory, in all containers.
uint64_t CountOomKills() {
  std::ifstream file("/proc/vmstat");
  std::string name;
  for (uint64_t value = 0; file >> name >> value;) {
    if (name == "oom_kill") return value;
  }
  return 0;
}

std::string DescribeSignal(int signal) {
  const char* name = sigabbrev_np(signal);
  return name == nullptr ? StrCat("was killed by signal ", signal)
                         : StrCat("was killed by SIG", name);
}

}  // namespace

Result<std::unique_ptr<WorkerProcess>> WorkerProcess::Spawn(const WorkerLaunch& launch) {
  Ends socket = MakeSocket();
  Ends lifeline = MakePipe(/*we_read=*/false);
  Ends log = MakePipe(/*we_read=*/true);
  if (!socket.ok() || !lifeline.ok() || !log.ok()) return CannotStart(errno);
  fcntl(log.ours.get(), F_SETFL, O_NONBLOCK);
  fcntl(log.ours.get(), F_SETPIPE_SZ, kLogPipeBytes);  // where that is not allowed, the usual size
  PENSTOCK_ASSIGN_OR_RETURN(OwnedFd document, Slab::CreateDocument(launch.start_document));
  const OwnedFd start(fcntl(document.get(), F_DUPFD_CLOEXEC, kLowestOwnFd));
  if (start.get() < 0) return CannotStart(errno);
  SpawnSetup setup;
  setup.Add(log.theirs.get(), STDOUT_FILENO);
  setup.Add(log.theirs.get(), STDERR_FILENO);
  setup.Add(socket.theirs.get(), kWorkerSocketFd);
  setup.Add(lifeline.theirs.get(), kWorkerLifelineFd);
  setup.Add(start.get(), kWorkerStartFd);
  std::unique_ptr<WorkerProcess> process(new WorkerProcess);
  process->oom_kills_ = CountOomKills();
  const int error = setup.Spawn(launch.arguments, &process->pid_);
  if (error != 0) {
    process->pid_ = -1;
    return CannotStart(error);
  }
  process->pid_fd_ = OwnedFd(OpenPidFd(process->pid_));
  process->socket_ = std::move(socket.ours);
  setsockopt(process->socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &kSendLimit, sizeof(kSendLimit));
  process->lifeline_ = std::move(lifeline.ours);
  process->log_ = std::move(log.ours);
  if (process->pid_fd_.get() < 0) return CannotStart(errno);  // the destructor ends it
  return process;
}

WorkerProcess::~WorkerProcess() {
  if (pid_ < 0 || is_reaped_) return;
  Kill();
  pollfd end{pid_fd_.get(), POLLIN, 0};
  while (end.fd >= 0 && poll(&end, 1, kEndLimitMs) < 0 && errno == EINTR) {
  }
  kill(-pid_, SIGKILL);
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

bool WorkerProcess::Send(const WorkerPacket& packet, int attached_fd) const {
  WorkerPacket copy = packet;
  iovec part{&copy, sizeof(copy)};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (attached_fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &attached_fd, sizeof(int));
  }
  ssize_t sent = 0;
  do {
    sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(sizeof(copy));
}

bool WorkerProcess::TrySend(const WorkerPacket& packet) const {
  const ssize_t sent = send(socket_.get(), &packet, sizeof(packet), MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

WorkerProcess::Received WorkerProcess::Receive(bool wait, WorkerPacket* packet) const {
  // One byte more than a packet has, so that a longer one is seen.
  char bytes[sizeof(WorkerPacket) + 1];
  ssize_t size = 0;
  do {
    size = recv(socket_.get(), bytes, sizeof(bytes), wait ? 0 : MSG_DONTWAIT);
  } while (size < 0 && errno == EINTR);
  if (size < 0) {
    return errno == EAGAIN || errno == EWOULDBLOCK ? Received::kNothing : Received::kClosed;
  }
  if (size == 0) return Received::kClosed;
  if (size != static_cast<ssize_t>(sizeof(WorkerPacket))) return Received::kGarbage;
  std::memcpy(packet, bytes, sizeof(*packet));
  return Received::kPacket;
}

void WorkerProcess::SetTimeout(int64_t timeout_ns) const {
  const timeval timeout{timeout_ns / kNsPerS, timeout_ns % kNsPerS / 1000};
  setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
}

void WorkerProcess::CloseSocket() const { shutdown(socket_.get(), SHUT_RDWR); }

void WorkerProcess::Kill() const {
  // Not reaped yet, so that the number is still its own, and its group's.
  if (is_reaped_) return;
  kill(-pid_, SIGTERM);
  kill(pid_, SIGTERM);  // where it has left its group
}

std::optional<std::string> WorkerProcess::ReapIfEnded() {
  siginfo_t info{};
  const int error =
      waitid(P_PIDFD, static_cast<id_t>(pid_fd_.get()), &info, WEXITED | WNOHANG | WNOWAIT);
  if (error == 0 && info.si_pid == 0) return std::nullopt;
  kill(-pid_, SIGKILL);  // what it started, while its number is still taken
  waitid(P_PIDFD, static_cast<id_t>(pid_fd_.get()), &info, WEXITED | WNOHANG);
  is_reaped_ = true;
  if (error != 0) return "ended";
  if (info.si_code == CLD_EXITED) return StrCat("exited with code ", info.si_status);
  std::string how = DescribeSignal(info.si_status);
  if (info.si_status == SIGKILL && CountOomKills() > oom_kills_) {
    how += ", while the system was out of memory";
  }
  return how;
}

}  // namespace penstock
