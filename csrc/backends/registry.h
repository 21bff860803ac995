// BackendRegistry: finds a backend's plug-in, opens it once, keeps it.

#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "base/mutex.h"

namespace penstock {

// Threading: thread-safe.
// Ownership: owns the backends; a plug-in is never closed, so code of it may run until the process
// ends.
// Blocking: Get, the first time for a name, opens a shared object and starts its engine, which may
// take a minute; Get of that name waits for it, of another name does not.
class BackendRegistry {
 public:
  // Plug-ins are `libpenstock_<name>.so` in one of `directories`, searched in order.
  explicit BackendRegistry(std::vector<std::string> directories);

  // What `name`'s entry is called with. Before the first Get for it.
  void SetOptions(const std::string& name, BackendOptions options);

  BackendOptions options(const std::string& name) const;

  // Registers a backend built into this program (tests, benches); before any Get for its name.
  void Register(const std::string& name, std::unique_ptr<Backend> backend);

  // The backend called `name`; NOT_FOUND where no directory holds its plug-in, FAILED_PRECONDITION
  // where the plug-in does not open, has no entry of our version, or cannot start its engine. A
  // failure is not remembered: the next Get tries again.
  Result<Backend*> Get(const std::string& name);

 private:
  // What is known of a name: the backend, or who may open it, and with what.
  struct Found {
    Backend* backend = nullptr;
    std::shared_ptr<Mutex> opening = nullptr;
    BackendOptions options = {};
  };
  Found Find(const std::string& name) EXCLUDES(mu_);
  Result<std::unique_ptr<Backend>> Open(const std::string& name,
                                        const BackendOptions& options) const;

  // Constant after construction.
  const std::vector<std::string> directories_;

  mutable Mutex mu_;
  // Guarded by mu_.
  std::map<std::string, BackendOptions> options_ GUARDED_BY(mu_);
  std::map<std::string, std::unique_ptr<Backend>> backends_ GUARDED_BY(mu_);
  // By name; held, before mu_, while its plug-in opens: two first loads must not open it twice.
  std::map<std::string, std::shared_ptr<Mutex>> openings_ GUARDED_BY(mu_);
};

}  // namespace penstock
