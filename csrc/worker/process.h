// WorkerProcess: one child process, from its start to its end.

#pragma once

#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s
#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "worker/owned_fd.h"
#include "worker/packet_socket.h"

namespace penstock {

struct WorkerLaunch {
  std::vector<std::string> arguments;         // the first is the program's path
  std::string start_document;                 // what it reads from descriptor kStartFd
  std::vector<std::string> environment = {};  // NAME=value, beside or in place of the server's
  // By default one for which the process kills at once whatever it started: a Python worker's is its
  // keeper (server/penstock/worker/keeper.py), which runs no code of a model.
  int end_signal = SIGTERM;
};

// The child finds: 0 = /dev/null, 1 and 2 = a pipe to the server's log, and the three below. It has
// no other descriptor of the server's, a process group of its own, every signal as a fresh process
// has it, and the server's environment without the server's own settings (PENSTOCK_*).
inline constexpr int kWorkerSocketFd = 3;
// The read end of a pipe into which nothing is ever written: it ends when the server does, however
// that ends. The worker has the kernel kill its whole group then (O_ASYNC, F_SETSIG): that also ends
// one that computes for ever and looks at no descriptor.
inline constexpr int kWorkerLifelineFd = 4;
inline constexpr int kWorkerStartFd = 5;

// Threading: thread-safe, but for ReapIfEnded and Kill: those exclude each other.
// Ownership: owns the descriptors, and the child: the destructor kills it and waits for its end.
// Blocking: the destructor, for the end of a process that was killed.
class WorkerProcess {
 public:
  static Result<std::unique_ptr<WorkerProcess>> Spawn(const WorkerLaunch& launch);
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  int pid_fd() const { return pid_fd_.get(); }  // readable once the process has ended
  int log_fd() const { return log_.get(); }     // non-blocking
  const PacketSocket& socket() const { return socket_; }

  // Ends the process, by its launch's signal.
  void Kill() const;
  // How it ended: "exited with code 3", "was killed by SIGSEGV"; nullopt while it runs.
  std::optional<std::string> ReapIfEnded();

 private:
  WorkerProcess(OwnedFd socket, int end_signal)
      : socket_(std::move(socket)), end_signal_(end_signal) {}

  // Constant after Spawn.
  const PacketSocket socket_;
  const int end_signal_;
  pid_t pid_ = -1;
  bool is_reaped_ = false;
  uint64_t oom_kills_ = 0;  // of the system, before it was started
  OwnedFd pid_fd_;
  OwnedFd lifeline_;
  OwnedFd log_;
};

}  // namespace penstock
