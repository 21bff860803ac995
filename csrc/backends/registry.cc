#include "backends/registry.h"

#include <dlfcn.h>
#include <unistd.h>

#include <utility>

#include "base/log.h"
#include "base/strcat.h"

namespace penstock {

BackendRegistry::BackendRegistry(std::vector<std::string> directories)
    : directories_(std::move(directories)) {}

void BackendRegistry::SetOptions(const std::string& name, BackendOptions options) {
  MutexLock lock(mu_);
  options_[name] = std::move(options);
}

BackendOptions BackendRegistry::options(const std::string& name) const {
  MutexLock lock(mu_);
  const auto found = options_.find(name);
  return found == options_.end() ? BackendOptions() : found->second;
}

void BackendRegistry::Register(const std::string& name, std::unique_ptr<Backend> backend) {
  MutexLock lock(mu_);
  backends_[name] = std::move(backend);
}

BackendRegistry::Found BackendRegistry::Find(const std::string& name) {
  MutexLock lock(mu_);
  if (const auto found = backends_.find(name); found != backends_.end()) {
    return {.backend = found->second.get()};
  }
  std::shared_ptr<Mutex>& opening = openings_[name];
  if (opening == nullptr) opening = std::make_shared<Mutex>();
  const auto options = options_.find(name);
  return {.opening = opening,
          .options = options == options_.end() ? BackendOptions() : options->second};
}

Result<Backend*> BackendRegistry::Get(const std::string& name) {
  const Found first = Find(name);
  if (first.backend != nullptr) return first.backend;
  MutexLock opening(*first.opening);
  const Found again = Find(name);  // another may have opened it meanwhile
  if (again.backend != nullptr) return again.backend;
  PENSTOCK_ASSIGN_OR_RETURN(std::unique_ptr<Backend> backend, Open(name, again.options));
  MutexLock lock(mu_);
  return (backends_[name] = std::move(backend)).get();
}

Result<std::unique_ptr<Backend>> BackendRegistry::Open(const std::string& name,
                                                       const BackendOptions& options) const {
  for (const std::string& directory : directories_) {
    const std::string path = StrCat(directory, "/libpenstock_", name, ".so");
    if (access(path.c_str(), R_OK) != 0) continue;
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      // It holds paths: for the log, not for clients.
      Log(LogLevel::kError, "backends", dlerror());  // NOLINT(concurrency-mt-unsafe): per thread
      return FailedPrecondition(
          StrCat("backend '", name, "' cannot be opened; the server's log says why"));
    }
    auto* entry = reinterpret_cast<BackendEntry>(dlsym(library, kBackendEntry));
    if (entry == nullptr) {
      return FailedPrecondition(StrCat("backend '", name, "' has no entry '", kBackendEntry,
                                       "': it was built for another version of Penstock"));
    }
    return entry(options);
  }
  return NotFound(StrCat("unknown backend '", name, "': no plug-in libpenstock_", name,
                         ".so in the backend directories"));
}

}  // namespace penstock
