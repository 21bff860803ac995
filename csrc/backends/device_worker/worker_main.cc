// penstock_device_worker <plug-in directory>...: runs models on one device. Started by the server
// alone: see worker/process.h for what it finds.

#include <unistd.h>

#include <string>
#include <vector>

#include "backends/device_worker/child_server.h"
#include "base/log.h"
#include "worker/child_channel.h"

int main(int argc, char** argv) {
  penstock::HoldLifeline();
  penstock::SetLogging({.format = penstock::LogFormat::kRelayed});
  // Never destroyed: its threads run until the process ends.
  auto* server =
      new penstock::ChildServer(std::vector<std::string>(argv + 1, argv + argc));  // NOLINT
  server->Serve();
  _exit(0);  // no destructor of a vendor's library gets to hang
}
