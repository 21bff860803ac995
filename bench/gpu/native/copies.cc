// How a batch of images gets to the device, and what the kernel that normalises them makes of its
// memory.

#include <cstring>

#include "gpu_bench.h"

namespace penstock::gpu {
namespace {

constexpr size_t kBatchBytes = kImages * kImageBytes;

// A batch in every kind of memory.
struct Memory {
  explicit Memory(Api& gpu) : api(gpu), pageable(kBatchBytes, 1) {
    CHECK_SUCCESS(api.CreateStream(&stream));
    CHECK_SUCCESS(api.AllocatePinned(kBatchBytes, &pinned));
    CHECK_SUCCESS(api.AllocatePinned(kImages * sizeof(void*), &rows));
    CHECK_SUCCESS(api.AllocateAsync(kBatchBytes, stream, &device));
    CHECK_SUCCESS(api.AllocateAsync(2 * kBatchBytes, stream, &halves));
    std::memset(pinned, 1, kBatchBytes);
    for (uint32_t i = 0; i < kImages; ++i) static_cast<const void**>(rows)[i] = Row(pinned, i);
  }
  ~Memory() {
    CHECK_SUCCESS(api.FreeAsync(halves, stream));
    CHECK_SUCCESS(api.FreeAsync(device, stream));
    CHECK_SUCCESS(api.SynchronizeStream(stream));
    CHECK_SUCCESS(api.FreePinned(rows));
    CHECK_SUCCESS(api.FreePinned(pinned));
    CHECK_SUCCESS(api.DestroyStream(stream));
  }

  static uint8_t* Row(void* data, uint32_t row) {
    return static_cast<uint8_t*>(data) + row * kImageBytes;
  }

  Api& api;
  Stream stream = nullptr;
  std::vector<uint8_t> pageable;
  void *pinned = nullptr, *rows = nullptr, *device = nullptr, *halves = nullptr;
};

std::vector<Copy> RowCopies(Memory& memory, void* from) {
  std::vector<Copy> copies;
  for (uint32_t i = 0; i < kImages; ++i) {
    copies.push_back({Memory::Row(memory.device, i), Memory::Row(from, i), kImageBytes});
  }
  return copies;
}

void MeasureToDevice(Memory& memory, Kernels& kernels, int rounds) {
  const auto measure = [&](const std::string& what, const std::function<void()>& enqueue) {
    PrintRate("host to device", what, "GB/s", kBatchBytes / 1e9, Seconds(rounds, [&] {
                enqueue();
                CHECK_SUCCESS(memory.api.SynchronizeStream(memory.stream));
              }));
  };
  const auto one_by_one = [&memory](const std::vector<Copy>& copies) {
    for (const Copy& copy : copies) {
      CHECK_SUCCESS(memory.api.CopyAsync(copy, CopyKind::kHostToDevice, memory.stream));
    }
  };
  const std::vector<Copy> pageable = RowCopies(memory, memory.pageable.data());
  const std::vector<Copy> pinned = RowCopies(memory, memory.pinned);
  measure("32 rows, pageable, a copy each", [&] { one_by_one(pageable); });
  measure("32 rows, pinned, a copy each", [&] { one_by_one(pinned); });
  measure("32 rows, pinned, one call (cudaMemcpyBatchAsync)", [&] {
    CHECK_SUCCESS(memory.api.CopyBatchAsync(pinned, CopyKind::kHostToDevice, memory.stream));
  });
  measure("32 rows, pinned, gathered by a kernel", [&] {
    CHECK_SUCCESS(kernels.Gather(memory.device, static_cast<const void* const*>(memory.rows),
                                 kImages, kImageBytes, memory.stream));
  });
  measure("one piece, pinned", [&] { one_by_one({{memory.device, memory.pinned, kBatchBytes}}); });
}

void MeasureOnDevice(Memory& memory, Kernels& kernels, int rounds) {
  const auto measure = [&](const char* what, double bytes, const std::function<void()>& enqueue) {
    PrintRate("on the device", what, "GB/s", bytes / 1e9, Seconds(rounds, [&] {
                for (int i = 0; i < 10; ++i) enqueue();
                CHECK_SUCCESS(memory.api.SynchronizeStream(memory.stream));
              }));
  };
  measure("uint8 NHWC to fp16 NCHW, normalised", 10.0 * 3 * kBatchBytes, [&] {
    CHECK_SUCCESS(kernels.Normalise(memory.halves, memory.device, kImages, memory.stream));
  });
  const auto copy = [&memory](size_t from_begin, size_t size_bytes) {
    const Copy each{static_cast<uint8_t*>(memory.halves) + from_begin, memory.device, size_bytes};
    CHECK_SUCCESS(memory.api.CopyAsync(each, CopyKind::kDeviceToDevice, memory.stream));
  };
  measure("copy of the same bytes: the ceiling", 10.0 * 3 * kBatchBytes, [&] {
    copy(kBatchBytes / 2, kBatchBytes);
    copy(0, kBatchBytes / 2);
  });
}

}  // namespace

void MeasureCopies(Api& api, Kernels& kernels, int rounds) {
  Memory memory(api);
  MeasureToDevice(memory, kernels, rounds);
  MeasureOnDevice(memory, kernels, rounds);
}

}  // namespace penstock::gpu
