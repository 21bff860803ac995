#include "backends/device_worker/slab_outputs.h"

#include <cstring>
#include <string>
#include <utility>

#include "base/strcat.h"
#include "worker/messages.h"
#include "worker/slab.h"

namespace penstock {
namespace {

// Of a body of DONE that is no failure, and of an output in it, at most.
constexpr size_t kBodyBytes = 16;
constexpr size_t kBodyBytesOfAnOutput = 28 + 8 * kMaxRank;

size_t Aligned(size_t size_bytes) {
  constexpr size_t kAlignment = SlabArena::kAlignment;
  return (size_bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Where each output goes; the end of all of them.
size_t PlaceOutputs(const std::vector<BatchOutput>& outputs, WorkerResult* result) {
  size_t end = 0;
  for (const BatchOutput& output : outputs) {
    result->outputs.push_back(
        {static_cast<uint32_t>(output.index), output.dtype, output.shape, end, output.data.size()});
    end += Aligned(output.data.size());
  }
  return end;
}

bool BeginsIn(std::span<const uint8_t> slab, const uint8_t* data) {
  const auto begin = reinterpret_cast<uintptr_t>(slab.data());
  return reinterpret_cast<uintptr_t>(data) - begin < slab.size();
}

}  // namespace

std::vector<std::span<uint8_t>> AllocateOutputs(ChildChannel& channel,
                                                std::span<const size_t> sizes) {
  size_t end = 0;
  for (const size_t size : sizes) end += Aligned(size);
  if (end == 0) return {};
  const size_t room = end + kBodyBytes + sizes.size() * kBodyBytesOfAnOutput;
  if (room > kMaxWorkerOutputBytes) return {};
  const std::span<uint8_t> slab = channel.Reserve(room);
  if (slab.size() < room) return {};
  std::vector<std::span<uint8_t>> pieces;
  size_t at = 0;
  for (const size_t size : sizes) {
    pieces.push_back(slab.subspan(at, size));
    at += Aligned(size);
  }
  return pieces;
}

Result<bool> SendOutputs(ChildChannel& channel, uint64_t batch,
                         const std::vector<BatchOutput>& outputs) {
  WorkerResult result;
  const size_t end = PlaceOutputs(outputs, &result);
  std::string body;
  EncodeResult(result, &body);
  const size_t size = end + body.size();
  if (size > kMaxWorkerOutputBytes) {
    return ResourceExhausted(StrCat("a batch's outputs take ", size, " bytes, expected at most ",
                                    kMaxWorkerOutputBytes));
  }
  const std::span<uint8_t> slab = channel.Reserve(size);
  if (channel.has_no_room()) {
    return ResourceExhausted(StrCat("no shared memory of ", size, " bytes for a batch's outputs"));
  }
  if (slab.size() < size) return false;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const auto data = outputs[i].data.span();
    uint8_t* place = slab.data() + result.outputs[i].offset;
    if (data.empty() || data.data() == place) continue;
    if (BeginsIn(slab, data.data())) {
      return Internal(StrCat("output ", outputs[i].index, " of a batch lies in another's place"));
    }
    std::memcpy(place, data.data(), data.size());
  }
  return channel.SendBody({.kind = WorkerPacketKind::kDone, .batch = batch}, body, end);
}

}  // namespace penstock
