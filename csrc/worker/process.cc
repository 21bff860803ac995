#include "worker/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
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
constexpr int64_t kSendLimitNs = 2'000'000'000;
constexpr int kEndLimitMs = 10'000;  // of a process that was asked to end

Status CannotStart(int error) {
  return Unavailable(StrCat("a worker cannot be started: ", strerrordesc_np(error)));
}

// The same descriptor under a number that no dup2 of the child's takes.
OwnedFd Above(int fd) {
  OwnedFd low(fd);
  return OwnedFd(fcntl(fd, F_DUPFD_CLOEXEC, kLowestOwnFd));
}

// Two ends of a pipe, the server's and the child's.
struct Ends {
  OwnedFd ours;
  OwnedFd theirs;
  bool ok() const { return ours.get() >= 0 && theirs.get() >= 0; }
};

Ends MakePipe(bool we_read) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return {};
  Ends ends;
  ends.ours = Above(fds[we_read ? 0 : 1]);
  ends.theirs = Above(fds[we_read ? 1 : 0]);
  return ends;
}

// Neither the server's settings nor its way to speak to systemd are a model's.
std::vector<char*> ChildEnvironment(const std::vector<std::string>& set) {
  std::vector<char*> kept;
  kept.reserve(set.size());
  for (const std::string& entry : set) kept.push_back(const_cast<char*>(entry.c_str()));
  const auto is_set = [&set](std::string_view text) {
    return std::any_of(set.begin(), set.end(), [text](std::string_view entry) {
      return text.starts_with(entry.substr(0, entry.find('=') + 1));
    });
  };
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (text.starts_with("PENSTOCK_") || text.starts_with("NOTIFY_SOCKET=") ||
        text.starts_with("WATCHDOG_") || text.starts_with("LISTEN_") || is_set(text)) {
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

  int Spawn(const WorkerLaunch& launch, pid_t* pid) {
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
    argv.reserve(launch.arguments.size() + 1);
    for (const std::string& argument : launch.arguments) {
      argv.push_back(const_cast<char*>(argument.c_str()));
    }
    argv.push_back(nullptr);
    std::vector<char*> child_environment = ChildEnvironment(launch.environment);
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
  PENSTOCK_ASSIGN_OR_RETURN(auto connection, PacketSocket::MakeEnds());
  const OwnedFd their_socket(fcntl(connection.second.get(), F_DUPFD_CLOEXEC, kLowestOwnFd));
  Ends lifeline = MakePipe(/*we_read=*/false);
  Ends log = MakePipe(/*we_read=*/true);
  if (their_socket.get() < 0 || !lifeline.ok() || !log.ok()) return CannotStart(errno);
  fcntl(log.ours.get(), F_SETFL, O_NONBLOCK);
  fcntl(log.ours.get(), F_SETPIPE_SZ, kLogPipeBytes);  // where that is not allowed, the usual size
  PENSTOCK_ASSIGN_OR_RETURN(OwnedFd document, Slab::CreateDocument(launch.start_document));
  const OwnedFd start(fcntl(document.get(), F_DUPFD_CLOEXEC, kLowestOwnFd));
  if (start.get() < 0) return CannotStart(errno);
  SpawnSetup setup;
  setup.Add(log.theirs.get(), STDOUT_FILENO);
  setup.Add(log.theirs.get(), STDERR_FILENO);
  setup.Add(their_socket.get(), kWorkerSocketFd);
  setup.Add(lifeline.theirs.get(), kWorkerLifelineFd);
  setup.Add(start.get(), kWorkerStartFd);
  std::unique_ptr<WorkerProcess> process(
      new WorkerProcess(std::move(connection.first), launch.end_signal));
  process->oom_kills_ = CountOomKills();
  const int error = setup.Spawn(launch, &process->pid_);
  if (error != 0) {
    process->pid_ = -1;
    return CannotStart(error);
  }
  process->pid_fd_ = OwnedFd(OpenPidFd(process->pid_));
  process->socket_.SetSendLimit(kSendLimitNs);
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

void WorkerProcess::Kill() const {
  // Not reaped yet, so that the number is still its own, and its group's.
  if (is_reaped_) return;
  kill(-pid_, end_signal_);
  kill(pid_, end_signal_);  // where it has left its group
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
