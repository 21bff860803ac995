// The plug-in's entry: the fixture backend for servers that tests start.

#include "testing/fixture_backend.h"

extern "C" __attribute__((visibility("default")))
penstock::Result<std::unique_ptr<penstock::Backend>>
penstock_backend_v3(const penstock::BackendOptions& /*options*/) {
  return penstock::MakeFixtureBackend();
}
