#include "backends/tensorrt/preflight.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

#include "backends/tensorrt/probe.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/strcat.h"
#include "worker/owned_fd.h"

extern char** environ;  // NOLINT(readability-redundant-declaration)

namespace penstock::tensorrt {
namespace {

constexpr int kReapMs = 2000;
constexpr size_t kMaxLineBytes = 64 << 10;    // of a longer line the rest is dropped
constexpr size_t kMaxVendorBytes = 64 << 10;  // of what vendors write, the rest is not logged
constexpr size_t kMaxLeftBytes = 1 << 20;     // that may lie in the pipe when the probe has ended

// What the probe said, its last word of each kind.
struct Said {
  std::string step, away, refused, found;
};

// Takes the probe's lines out of its output as it comes, whatever vendors write before, between and
// after them, and however much.
// Threading: thread-compatible.
class LineReader {
 public:
  void Add(std::string_view bytes);
  // A last line that was not ended.
  Said Finish();

 private:
  void TakeLine();
  void LogLine();

  Said said_;
  std::string line_;
  size_t logged_bytes_ = 0;
};

void LineReader::Add(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t end = std::min(bytes.find('\n'), bytes.size());
    if (line_.size() < kMaxLineBytes) line_.append(bytes.substr(0, end), 0, kMaxLineBytes);
    if (end == bytes.size()) return;
    TakeLine();
    bytes.remove_prefix(end + 1);
  }
}

Said LineReader::Finish() {
  TakeLine();
  return said_;
}

void LineReader::TakeLine() {
  if (line_.starts_with(kProbeLine)) {
    const std::string_view text = std::string_view(line_).substr(std::strlen(kProbeLine));
    for (const auto& [word, field] :
         {std::pair(kStepWord, &said_.step), std::pair(kAwayWord, &said_.away),
          std::pair(kRefusedWord, &said_.refused), std::pair(kFoundWord, &said_.found)}) {
      if (text.starts_with(word)) *field = text.substr(std::strlen(word));
    }
  } else if (!line_.empty()) {
    LogLine();
  }
  line_.clear();
}

void LineReader::LogLine() {
  if (logged_bytes_ >= kMaxVendorBytes) return;
  logged_bytes_ += line_.size();
  const bool is_last = logged_bytes_ >= kMaxVendorBytes;
  Log(LogLevel::kInfo, "tensorrt",
      StrCat("probe: ", line_, is_last ? " (more of it is not logged)" : ""));
}

// Threading: thread-compatible. Ownership: owns the child: the destructor kills it and waits, for a
// moment.
class Child {
 public:
  ~Child() { Reap(/*kills=*/true); }

  // errno's value, or 0.
  int Start(const std::vector<std::string>& arguments);
  // What it says until it ends, or what came of that in time. A process that it started may keep
  // the output open for longer: it is not waited for.
  Said Read(int limit_ms, bool* is_over);
  // How it ended, as waitpid says. None: it has not, for a driver holds it where no signal goes.
  std::optional<int> Reap(bool kills);

 private:
  // Reads what is there. False: nobody can write any more.
  bool ReadSome(LineReader* reader, size_t* count);
  void ReadLeft(LineReader* reader);

  pid_t pid_ = -1;
  OwnedFd output_;
  OwnedFd handle_;  // readable when it has ended; none: a kernel that has no such thing
};

// The server's settings, which may be secrets, are none of a vendor's library.
std::vector<char*> Environment() {
  std::vector<char*> kept;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (!std::string_view(*entry).starts_with("PENSTOCK_")) kept.push_back(*entry);
  }
  kept.push_back(nullptr);
  return kept;
}

int Child::Start(const std::vector<std::string>& arguments) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return errno;
  output_ = OwnedFd(fds[0]);
  const OwnedFd theirs(fds[1]);
  std::vector<char*> argv;
  argv.reserve(arguments.size() + 1);
  for (const std::string& each : arguments) argv.push_back(const_cast<char*>(each.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, theirs.get(), STDERR_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1);
  sigset_t signals;
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  std::vector<char*> environment = Environment();
  const int error =
      posix_spawn(&pid_, argv[0], &actions, &attributes, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    pid_ = -1;
    return error;
  }
  handle_ = OwnedFd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  return 0;
}

bool Child::ReadSome(LineReader* reader, size_t* count) {
  char bytes[4096];
  const ssize_t got = read(output_.get(), bytes, sizeof(bytes));
  *count = got > 0 ? static_cast<size_t>(got) : 0;
  reader->Add({bytes, *count});
  return got > 0 || (got < 0 && errno == EINTR);
}

void Child::ReadLeft(LineReader* reader) {
  pollfd entry{output_.get(), POLLIN, 0};
  for (size_t left = kMaxLeftBytes, count = 0; left > 0; left -= std::min(left, count)) {
    if (poll(&entry, 1, 0) <= 0 || !ReadSome(reader, &count)) return;
  }
}

Said Child::Read(int limit_ms, bool* is_over) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::milliseconds(limit_ms);
  LineReader reader;
  *is_over = false;
  while (!*is_over) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0) break;
    pollfd entries[] = {{output_.get(), POLLIN, 0}, {handle_.get(), POLLIN, 0}};
    if (poll(entries, 2, static_cast<int>(left)) <= 0) continue;
    size_t count = 0;
    if (entries[1].revents != 0) {
      ReadLeft(&reader);
      *is_over = true;
    } else if (entries[0].revents != 0) {
      *is_over = !ReadSome(&reader, &count);
    }
  }
  return reader.Finish();
}

std::optional<int> Child::Reap(bool kills) {
  if (pid_ < 0) return std::nullopt;
  const pid_t pid = std::exchange(pid_, -1);
  if (kills) kill(pid, SIGKILL);
  pollfd entry{handle_.get(), POLLIN, 0};
  while (poll(&entry, 1, kReapMs) < 0 && errno == EINTR) {
  }
  int status = 0;
  if (waitpid(pid, &status, WNOHANG) == pid) return status;
  Log(LogLevel::kError, "tensorrt",
      StrCat("the probe, process ", pid, ", does not end: it is left"));
  return std::nullopt;
}

std::optional<FoundLibrary> ReadFound(const std::string& text) {
  std::istringstream fields(text);
  FoundLibrary found;
  Version& version = found.version;
  fields >> version.major >> version.minor >> version.patch >> version.build >> std::ws;
  if (!fields || !std::getline(fields, found.path) || found.path.empty()) return std::nullopt;
  return found;
}

std::string HowItEnded(int status, const std::string& step) {
  const char* name = WIFSIGNALED(status) ? sigabbrev_np(WTERMSIG(status)) : nullptr;
  const std::string end = !WIFSIGNALED(status) ? StrCat("exited with code ", WEXITSTATUS(status))
                          : name != nullptr    ? StrCat("was killed by SIG", name)
                                               : StrCat("was killed by signal ", WTERMSIG(status));
  return StrCat("the probe of it ", end, step.empty() ? "" : " while ", step);
}

}  // namespace

Result<FoundLibrary> Preflight(const PreflightOptions& options) {
  std::string versions;
  for (const HeaderVersion& each : options.accepted) {
    versions += StrCat(versions.empty() ? "" : ",", each.Text());
  }
  std::vector<std::string> arguments{options.program, versions};
  arguments.insert(arguments.end(), options.candidates.begin(), options.candidates.end());
  Child child;
  if (const int error = child.Start(arguments); error != 0) {
    return FailedPrecondition(
        StrCat("the probe of it cannot be started: ", strerrordesc_np(error)));
  }
  bool is_over = false;
  const Said said = child.Read(options.limit_ms, &is_over);
  if (!said.away.empty()) return Unavailable(said.away);
  if (!said.refused.empty()) return FailedPrecondition(said.refused);
  if (!is_over) {
    return FailedPrecondition(StrCat("the probe of it did not end within ", options.limit_ms,
                                     " ms, while ", said.step.empty() ? "starting" : said.step));
  }
  const std::optional<int> status = child.Reap(/*kills=*/false);
  if (!status) return FailedPrecondition("the probe of it does not end");
  const std::optional<FoundLibrary> found = ReadFound(said.found);
  if (*status != 0 || !found) return FailedPrecondition(HowItEnded(*status, said.step));
  return *found;
}

Result<FoundLibrary> RememberedPreflight(const PreflightOptions& options) {
  static auto& mu = *new Mutex;
  static auto& answers = *new std::map<std::string, Result<FoundLibrary>>;
  std::string question = options.program;
  for (const HeaderVersion& each : options.accepted) question += StrCat('\n', each.Text());
  for (const std::string& each : options.candidates) question += StrCat('\n', each);
  MutexLock lock(mu);  // of nothing else: loads of other backends do not come here
  const auto known = answers.find(question);
  if (known != answers.end()) return known->second;
  return answers.emplace(std::move(question), Preflight(options)).first->second;
}

}  // namespace penstock::tensorrt
