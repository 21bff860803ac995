// WorkerProcess: one child process, from its start to its end.

#pragma once

#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "worker/messages.h"
#include "worker/owned_fd.h"

namespace penstock {

struct WorkerLaunch {
  std::vector<std::string> arguments;  // the first is the program's path
  std::string start_document;          // what it reads from descriptor kStartFd
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
// Blocking: Receive, up to the time-out that was set; Send, for seconds where the worker does not
// read; the destructor, for the end of a process that was killed.
class WorkerProcess {
 public:
  static Result<std::unique_ptr<WorkerProcess>> Spawn(const WorkerLaunch& launch);
  ~WorkerProcess();
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  int pid_fd() const { return pid_fd_.get(); }  // readable once the process has ended
  int log_fd() const { return log_.get(); }     // non-blocking
  int socket_fd() const { return socket_.get(); }

  // False where the worker's end is closed, or it takes nothing.
  bool Send(const WorkerPacket& packet, int attached_fd = -1) const;
  // Sends without waiting. False: it cannot be taken now, and may be later.
  bool TrySend(const WorkerPacket& packet) const;
  enum class Received { kPacket, kNothing, kClosed, kGarbage };
  // kNothing: the time-out passed, or `wait` is false and nothing is there.
  Received Receive(bool wait, WorkerPacket* packet) const;
  // For Receive; 0 = wait for ever. Send waits for some seconds only: a worker always reads.
  void SetTimeout(int64_t timeout_ns) const;
  // Whoever is in Receive or Send returns at once.
  void CloseSocket() const;

  // Ends the process by SIGTERM, for which it kills at once whatever it started: a Python worker's
  // process is its keeper (server/penstock/worker/keeper.py), which runs no code of a model.
  void Kill() const;
  // How it ended: "exited with code 3", "was killed by SIGSEGV"; nullopt while it runs.
  std::optional<std::string> ReapIfEnded();

 private:
  WorkerProcess() = default;

  pid_t pid_ = -1;
  bool is_reaped_ = false;
  uint64_t oom_kills_ = 0;  // of the system, before it was started
  OwnedFd pid_fd_;
  OwnedFd socket_;
  OwnedFd lifeline_;
  OwnedFd log_;
};

}  // namespace penstock
