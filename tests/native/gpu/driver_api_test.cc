// The driver as an Api, on a driver that is made for the test: every call arrives as what it is, lanes
// and graphs run through it, and each thing that may be missing is one reason.
#include "gpu/driver_api.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "gpu_harness.h"
#include "testing/shm_object.h"

namespace penstock::gpu {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

FakeGpu& GpuOfDriver() {
  void* library = dlopen(PENSTOCK_FAKE_DRIVER, RTLD_NOW | RTLD_LOCAL);
  using Entry = FakeGpu* (*)();
  return *reinterpret_cast<Entry>(dlsym(library, "penstock_fake_driver_gpu"))();
}

// FAKE_DRIVER while it lives.
struct Mood {
  explicit Mood(const char* mood) { setenv("FAKE_DRIVER", mood, 1); }
  ~Mood() { unsetenv("FAKE_DRIVER"); }
};

std::string WhyNot(const std::string& library = PENSTOCK_FAKE_DRIVER) {
  const QuietLog quiet;
  const auto api = OpenDriverApi(library);
  if (api.ok()) return "";
  EXPECT_EQ(api.status().code(), StatusCode::kUnavailable);
  return std::string(api.status().message());
}

TEST(DriverApiTest, Properties_AreTheDevices) {
  const auto api = OpenDriverApi(PENSTOCK_FAKE_DRIVER);
  ASSERT_TRUE(api.ok()) << api.status().ToString();
  DeviceProperties expected;
  ASSERT_EQ(GpuOfDriver().GetProperties(1, &expected), Error::kSuccess);
  DeviceProperties found;
  ASSERT_EQ((*api)->GetProperties(1, &found), Error::kSuccess);
  EXPECT_EQ(found.name, expected.name);
  EXPECT_EQ(found.uuid, expected.uuid);
  EXPECT_EQ(found.compute_major, expected.compute_major);
  EXPECT_EQ(found.compute_minor, expected.compute_minor);
  EXPECT_EQ(found.multiprocessors, expected.multiprocessors);
  EXPECT_EQ(found.memory_bytes, expected.memory_bytes);
  EXPECT_EQ(found.pci_bus_id, expected.pci_bus_id);
  EXPECT_EQ((*api)->GetProperties(2, &found), Error::kInvalidDevice);
  EXPECT_EQ((*api)->SetDevice(2), Error::kInvalidDevice);
}

// As with the driver itself: what CUDA's runtime does by itself at a thread's first call is for us to do.
TEST(DriverApiTest, ThreadThatHasTakenNoDevice_IsRefused) {
  const auto api = OpenDriverApi(PENSTOCK_FAKE_DRIVER);
  ASSERT_TRUE(api.ok()) << api.status().ToString();
  ASSERT_EQ((*api)->SetDevice(0), Error::kSuccess);
  std::thread([&] {
    constexpr auto kInvalidContext = static_cast<Error>(201);
    Stream stream = nullptr;
    size_t bytes = 0;
    EXPECT_EQ((*api)->CreateStream(&stream), kInvalidContext);
    EXPECT_EQ((*api)->MemoryInfo(&bytes, &bytes), kInvalidContext);
    ASSERT_EQ((*api)->SetDevice(1), Error::kSuccess);
    ASSERT_EQ((*api)->CreateStream(&stream), Error::kSuccess);
    EXPECT_EQ((*api)->DestroyStream(stream), Error::kSuccess);
  }).join();
}

TEST(DriverApiTest, MemoryOfAnotherProcess_IsOpenedFromWhereItWasExported) {
  const auto api = OpenDriverApi(PENSTOCK_FAKE_DRIVER);
  ASSERT_TRUE(api.ok()) << api.status().ToString();
  ASSERT_EQ((*api)->SetDevice(0), Error::kSuccess);
  const ShmObject object(std::string_view("0123456789"));
  IpcHandle handle{};
  const std::string name = object.IpcHandle();
  std::copy(name.begin(), name.end(), handle.begin());
  void* data = nullptr;
  size_t size_bytes = 0;
  ASSERT_EQ((*api)->OpenIpcMemory(handle, &data, &size_bytes), Error::kSuccess);
  EXPECT_EQ(size_bytes, 10U);
  EXPECT_EQ((*api)->CloseIpcMemory(data), Error::kSuccess);
  EXPECT_NE((*api)->OpenIpcMemory(IpcHandle{}, &data, &size_bytes), Error::kSuccess);
}

// Host memory that is registered -> GPU 0 -> there -> GPU 1 -> host.
TEST(DriverApiTest, CopiesOnAndBetweenDevices_ArriveAsWhatTheyAre) {
  const auto api = OpenDriverApi(PENSTOCK_FAKE_DRIVER);
  ASSERT_TRUE(api.ok()) << api.status().ToString();
  FakeGpu& gpu = GpuOfDriver();
  const int pageable = gpu.pageable_copies();
  const int peers = gpu.peer_copies();
  std::string bytes = "0123456789";
  ASSERT_EQ((*api)->SetDevice(0), Error::kSuccess);
  ASSERT_EQ((*api)->RegisterHost(bytes.data(), bytes.size()), Error::kSuccess);
  EXPECT_EQ((*api)->RegisterHost(bytes.data(), 1), Error::kHostMemoryAlreadyRegistered);
  Stream streams[2] = {};
  void* blocks[3] = {};
  for (const int device : {1, 0}) {
    ASSERT_EQ((*api)->SetDevice(device), Error::kSuccess);
    ASSERT_EQ((*api)->CreateStream(&streams[device]), Error::kSuccess);
    ASSERT_EQ((*api)->AllocateAsync(10, streams[device], &blocks[device]), Error::kSuccess);
  }
  ASSERT_EQ((*api)->AllocateAsync(10, streams[0], &blocks[2]), Error::kSuccess);
  const Stream stream = streams[0];
  const auto copy = [&](void* to, const void* from, CopyKind kind) {
    return (*api)->CopyAsync({to, from, 10}, kind, stream);
  };
  EXPECT_EQ(copy(blocks[0], bytes.data(), CopyKind::kHostToDevice), Error::kSuccess);
  EXPECT_EQ(copy(blocks[2], blocks[0], CopyKind::kDeviceToDevice), Error::kSuccess);
  EXPECT_EQ(copy(blocks[1], blocks[2], CopyKind::kDeviceToDevice), Error::kInvalidValue);
  EXPECT_EQ((*api)->CopyPeerAsync({blocks[1], blocks[2], 10}, 1, 0, stream), Error::kSuccess);
  EXPECT_NE((*api)->CopyPeerAsync({blocks[1], blocks[2], 10}, 2, 0, stream), Error::kSuccess);
  ASSERT_EQ((*api)->SynchronizeStream(stream), Error::kSuccess);
  EXPECT_EQ(gpu.peer_copies() - peers, 1);
  std::fill(bytes.begin(), bytes.end(), '.');
  ASSERT_EQ((*api)->CopyAsync({bytes.data(), blocks[1], 10}, CopyKind::kDeviceToHost, streams[1]),
            Error::kSuccess);
  ASSERT_EQ((*api)->SynchronizeStream(streams[1]), Error::kSuccess);
  EXPECT_EQ(bytes, "0123456789");
  EXPECT_EQ(gpu.pageable_copies(), pageable);
  EXPECT_EQ((*api)->UnregisterHost(bytes.data()), Error::kSuccess);
  EXPECT_EQ((*api)->UnregisterHost(bytes.data()), Error::kHostMemoryNotRegistered);
  for (const int i : {0, 1, 2}) {
    EXPECT_EQ((*api)->FreeAsync(blocks[i], streams[i % 2]), Error::kSuccess);
  }
  for (const Stream each : streams) EXPECT_EQ((*api)->DestroyStream(each), Error::kSuccess);
}

// Streams, events, pinned and device memory, copies, capture and launches: all that lanes call.
TEST(DriverApiTest, Lanes_RunThroughIt) {
  auto api = OpenDriverApi(PENSTOCK_FAKE_DRIVER);
  ASSERT_TRUE(api.ok()) << api.status().ToString();
  FakeGpu& gpu = GpuOfDriver();
  const size_t before = gpu.live_objects();
  {
    const auto device = Device::Open(**api, Clock::System(), {});
    ASSERT_TRUE(device.ok()) << device.status().ToString();
    const auto pool = PinnedPool::Create(**api, (*device)->health(), /*block_bytes=*/16 << 10,
                                         /*blocks=*/4);
    ASSERT_TRUE(pool.ok()) << pool.status().ToString();
    FakeGpuEngine engine(gpu, {});
    auto group = LaneGroup::Load((*device)->resources(**pool), engine, {});
    ASSERT_TRUE(group.ok()) << group.status().ToString();
    for (const Bucket& bucket : (*group)->table().buckets()) EXPECT_TRUE(bucket.has_graph);
    Ledger ledger(engine);
    for (uint32_t i = 0; i < 40; ++i) {
      ledger.Submit(**group, std::move(*(*group)->Acquire()), i % 8 + 1);
    }
    ledger.AwaitAll();
    EXPECT_EQ(ledger.succeeded(), 40);
    EXPECT_EQ(ledger.wrong(), 0);
  }
  EXPECT_EQ(gpu.live_objects(), before);
}

TEST(DriverApiTest, Errors_AreTheDriversWithItsNames) {
  auto api = OpenDriverApi(PENSTOCK_FAKE_DRIVER);
  ASSERT_TRUE(api.ok());
  ASSERT_EQ((*api)->SetDevice(0), Error::kSuccess);
  GpuOfDriver().FailCall("CreateEvent", 1, Error::kMemoryAllocation);
  Event event = nullptr;
  EXPECT_EQ((*api)->CreateEvent(&event), Error::kMemoryAllocation);
  EXPECT_EQ((*api)->TakeLastError(), Error::kSuccess);  // a driver remembers none
  EXPECT_EQ((*api)->ErrorName(Error::kMemoryAllocation),
            GpuOfDriver().ErrorName(Error::kMemoryAllocation));
}

TEST(DriverApiTest, WhatIsMissing_IsOneReasonWithoutPaths) {
  EXPECT_EQ(WhyNot("/nowhere/libcuda.so.1"), "there is no CUDA driver on this machine");
  const std::string text = testing::TempDir() + "/libcuda.so.1";
  std::ofstream(text) << "this is not a library";
  EXPECT_EQ(WhyNot(text), "there is no CUDA driver on this machine");
  EXPECT_EQ(WhyNot("libm.so.6"), "the CUDA driver is too old: it has no cuInit");
  const Mood none("none");
  EXPECT_EQ(WhyNot(), "the CUDA driver finds no device");
}

// Also of one that finds no device.
TEST(DriverApiTest, VersionOfCuda_IsTheDriversOrNone) {
  EXPECT_EQ(DriverCudaVersion(PENSTOCK_FAKE_DRIVER), 13000);
  EXPECT_EQ(DriverCudaVersion("/nowhere/libcuda.so.1"), 0);
  EXPECT_EQ(DriverCudaVersion("libm.so.6"), 0);
}

TEST(DriverApiTest, DriverThatDoesNotStart_IsTheReason) {
  const Mood error("error 100");
  EXPECT_THAT(WhyNot(), AllOf(HasSubstr("the CUDA driver finds no device: "), Not(HasSubstr("/"))));
}

}  // namespace
}  // namespace penstock::gpu
