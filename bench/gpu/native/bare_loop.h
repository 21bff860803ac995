// BareLoop: an engine's batches with nothing around them but what a GPU asks for: what lanes can reach
// at most.

#pragma once

#include <memory>
#include <vector>

#include "gpu/device_engine.h"
#include "gpu/gpu_api.h"

namespace penstock::gpu {

// A few ways of a batch, each with memory and a stream of its own, on which it is copied in, computed and
// copied out; the way that was used longest ago is waited for, and used again.
// Threading: thread-compatible.
// Ownership: borrows the Api and the engine, which outlive it.
// Blocking: all of it. What does not work ends the program.
class BareLoop {
 public:
  BareLoop(Api& api, DeviceEngine& engine, size_t ways);
  ~BareLoop();
  BareLoop(const BareLoop&) = delete;
  BareLoop& operator=(const BareLoop&) = delete;

  // Sets the batches to come up: their rows, and whether a graph computes them.
  void Prepare(uint32_t rows, bool has_graph);
  // So many batches, to the end of the last.
  void Run(int batches);

 private:
  struct Way {
    Stream stream = nullptr;
    Bindings host, device;
    std::unique_ptr<DeviceContext> context = nullptr;
    GraphExec graph = nullptr;
  };

  void Allocate(Way& way);
  void Capture(Way& way);
  void DropGraph(Way& way);
  void Enqueue(Way& way);
  void Copy(const Way& way, CopyKind kind);

  Api& api_;
  DeviceEngine& engine_;
  std::vector<Way> ways_;
  uint32_t rows_ = 0;
};

}  // namespace penstock::gpu
