// The CUDA runtime and the kernels on a real GPU. Without one only the absence is checked.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "gpu/cuda_api.h"
#include "gpu/kernels/kernels.h"
#include "kernel_cases.h"
#include "reference.h"

namespace penstock::gpu {
namespace {

using ::testing::HasSubstr;

#define ASSERT_SUCCESS(call) ASSERT_EQ(call, Error::kSuccess)
#define ASSERT_CUDA(call) ASSERT_EQ(call, cudaSuccess)

TEST(CudaWithoutGpuTest, Open_SaysThatThereIsNone) {
  const auto opened = OpenCudaApi();
  if (opened.ok()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(opened.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr("CUDA"));
}

// A stream, pinned memory that the device sees, and device memory, of a real GPU.
class CudaTest : public ::testing::Test {
 protected:
  static constexpr size_t kBytes = 1 << 20;

  void SetUp() override {
    auto opened = OpenCudaApi();
    if (!opened.ok()) GTEST_SKIP() << opened.status().ToString();
    api_ = std::move(*opened);
    ASSERT_SUCCESS(api_->SetDevice(0));
    ASSERT_SUCCESS(api_->CreateStream(&stream_));
    ASSERT_SUCCESS(api_->AllocatePinned(2 * kBytes, &pinned_));
    ASSERT_SUCCESS(api_->AllocateAsync(2 * kBytes, stream_, &device_));
  }
  void TearDown() override {
    if (api_ == nullptr) return;
    EXPECT_EQ(api_->FreeAsync(device_, stream_), Error::kSuccess);
    EXPECT_EQ(api_->SynchronizeStream(stream_), Error::kSuccess);
    EXPECT_EQ(api_->FreePinned(pinned_), Error::kSuccess);
    EXPECT_EQ(api_->DestroyStream(stream_), Error::kSuccess);
  }

  // The first half of each memory is the kernels' input, the second their output.
  uint8_t* in() { return static_cast<uint8_t*>(device_); }
  uint8_t* out() { return static_cast<uint8_t*>(device_) + kBytes; }
  uint8_t* host() { return static_cast<uint8_t*>(pinned_); }
  uint8_t* host_out() { return static_cast<uint8_t*>(pinned_) + kBytes; }
  cudaStream_t native() { return reinterpret_cast<cudaStream_t>(stream_); }

  void CopyIn() {
    ASSERT_SUCCESS(api_->CopyAsync({in(), host(), kBytes}, CopyKind::kHostToDevice, stream_));
  }
  void CopyOut() {
    ASSERT_SUCCESS(api_->CopyAsync({host_out(), out(), kBytes}, CopyKind::kDeviceToHost, stream_));
    ASSERT_SUCCESS(api_->SynchronizeStream(stream_));
  }

  std::unique_ptr<Api> api_;
  Stream stream_ = nullptr;
  void* pinned_ = nullptr;
  void* device_ = nullptr;
};

TEST_F(CudaTest, Device_SaysWhatItIs) {
  DeviceProperties properties;
  ASSERT_SUCCESS(api_->GetProperties(0, &properties));
  EXPECT_FALSE(properties.name.empty());
  EXPECT_GT(properties.multiprocessors, 0);
  EXPECT_NE(properties.uuid, (std::array<uint8_t, 16>{}));
  EXPECT_THAT(properties.pci_bus_id, HasSubstr(":"));
}

TEST_F(CudaTest, EventThatIsNotReady_LeavesNoErrorBehind) {
  Event event = nullptr;
  ASSERT_SUCCESS(api_->CreateEvent(&event));
  std::promise<void> may_go_on;
  auto held = may_go_on.get_future();
  // The stream stops in front of the event until it is told to go on.
  const auto wait = [](void* future) { static_cast<std::future<void>*>(future)->wait(); };
  ASSERT_CUDA(cudaLaunchHostFunc(native(), wait, &held));
  EXPECT_EQ(api_->RecordEvent(event, stream_), Error::kSuccess);
  EXPECT_EQ(api_->QueryEvent(event), Error::kNotReady);
  EXPECT_EQ(api_->TakeLastError(), Error::kSuccess);
  may_go_on.set_value();
  ASSERT_SUCCESS(api_->SynchronizeStream(stream_));
  EXPECT_EQ(api_->QueryEvent(event), Error::kSuccess);
  ASSERT_SUCCESS(api_->DestroyEvent(event));
}

TEST_F(CudaTest, BatchOfCopies_CopiesEach) {
  for (size_t i = 0; i < 3000; ++i) host()[i] = static_cast<uint8_t>(i % 251);
  const Copy copies[] = {
      {out(), host(), 1000}, {out() + 1000, host() + 1000, 7}, {out() + 1007, host() + 1007, 1993}};
  ASSERT_SUCCESS(api_->CopyBatchAsync(copies, CopyKind::kHostToDevice, stream_));
  CopyOut();
  EXPECT_EQ(std::memcmp(host_out(), host(), 3000), 0);
}

TEST_F(CudaTest, CapturedKernel_RunsAtEachLaunch) {
  auto* values = reinterpret_cast<float*>(host());
  for (int i = 0; i < 1000; ++i) values[i] = static_cast<float>(i);
  Graph graph = nullptr;
  GraphExec exec = nullptr;
  ASSERT_SUCCESS(api_->BeginCapture(stream_));
  EXPECT_EQ(Cast(out(), Element::kFp16, in(), Element::kFp32, 1000, native()), cudaSuccess);
  ASSERT_SUCCESS(api_->EndCapture(stream_, &graph));
  ASSERT_SUCCESS(api_->Instantiate(graph, &exec));
  CopyIn();
  ASSERT_SUCCESS(api_->LaunchGraph(exec, stream_));
  CopyOut();
  for (uint16_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(reinterpret_cast<uint16_t*>(host_out())[i], NearestHalf(i, 5));
  }
  ASSERT_SUCCESS(api_->DestroyGraphExec(exec));
  ASSERT_SUCCESS(api_->DestroyGraph(graph));
}

TEST_F(CudaTest, EveryFloatStep_IsCastAsTheReferenceDoes) {
  const size_t count = kBytes / sizeof(float) - 3;  // a tail
  auto* values = reinterpret_cast<float*>(host());
  for (size_t i = 0; i < count; ++i) {
    values[i] = BitsFloat(static_cast<uint32_t>(i) * 16411U);
    if (!std::isfinite(values[i])) values[i] = 0;
  }
  for (const auto& [type, exponent_bits] :
       {std::pair<Element, int>{Element::kFp16, 5}, {Element::kBf16, 8}}) {
    CopyIn();
    ASSERT_CUDA(Cast(out(), type, in(), Element::kFp32, count, native()));
    CopyOut();
    const auto* halves = reinterpret_cast<const uint16_t*>(host_out());
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(halves[i], NearestHalf(values[i], exponent_bits)) << values[i];
    }
  }
}

TEST_F(CudaTest, EveryHalf_IsCastToItsFloat) {
  auto* halves = reinterpret_cast<uint16_t*>(host());
  for (uint32_t i = 0; i < 0x10000; ++i) halves[i] = static_cast<uint16_t>(i);
  for (const auto& [type, exponent_bits] :
       {std::pair<Element, int>{Element::kFp16, 5}, {Element::kBf16, 8}}) {
    CopyIn();
    ASSERT_CUDA(Cast(out(), Element::kFp32, in(), type, 0x10000, native()));
    CopyOut();
    for (uint32_t i = 0; i < 0x10000; ++i) {
      const double expected = HalfValue(static_cast<uint16_t>(i), exponent_bits);
      const double got = reinterpret_cast<const float*>(host_out())[i];
      ASSERT_TRUE(got == expected || (std::isnan(got) && std::isnan(expected))) << i;
    }
  }
}

// Memory for each piece, so that compute-sanitizer sees a byte too many.
class DeviceMachine final : public KernelMachine {
 public:
  DeviceMachine(Api& api, Stream stream) : api_(api), stream_(stream) {}

  Memory Take(size_t size_bytes, size_t offset) override {
    void* block = nullptr;
    EXPECT_EQ(api_.AllocateAsync(offset + size_bytes, stream_, &block), Error::kSuccess);
    return {static_cast<uint8_t*>(block) + offset, [this, block](uint8_t*) {
              EXPECT_EQ(api_.FreeAsync(block, stream_), Error::kSuccess);
            }};
  }
  void Write(uint8_t* to, const void* from, size_t size_bytes) override {
    EXPECT_EQ(api_.CopyAsync({to, from, size_bytes}, CopyKind::kHostToDevice, stream_),
              Error::kSuccess);
    EXPECT_EQ(api_.SynchronizeStream(stream_), Error::kSuccess);
  }
  void Read(void* to, const uint8_t* from, size_t size_bytes) override {
    EXPECT_EQ(api_.CopyAsync({to, from, size_bytes}, CopyKind::kDeviceToHost, stream_),
              Error::kSuccess);
    EXPECT_EQ(api_.SynchronizeStream(stream_), Error::kSuccess);
  }
  cudaStream_t stream() override { return reinterpret_cast<cudaStream_t>(stream_); }

 private:
  Api& api_;
  const Stream stream_;
};

// The cases that kernels_launch_test has on the host.
TEST_F(CudaTest, RowsOfEverySize_AreMovedWhole) {
  DeviceMachine machine(*api_, stream_);
  CheckRowsOfEverySize(machine);
}

TEST_F(CudaTest, CastsOfEverySize_AreTheReferences) {
  DeviceMachine machine(*api_, stream_);
  CheckCastsOfEverySize(machine);
}

TEST_F(CudaTest, ImagesOfEverySize_AreNormalisedAsTheReferenceDoes) {
  DeviceMachine machine(*api_, stream_);
  CheckImagesOfEverySize(machine);
}

TEST_F(CudaTest, MoreImagesThanAGridHas_AreAllNormalised) {
  DeviceMachine machine(*api_, stream_);
  CheckMoreImagesThanAGridHas(machine);
}

TEST_F(CudaTest, WhatIsEmptyOrRefused_IsNotLaunched) {
  DeviceMachine machine(*api_, stream_);
  CheckWhatIsNotLaunched(machine);
  EXPECT_EQ(api_->SynchronizeStream(stream_), Error::kSuccess);
}

}  // namespace
}  // namespace penstock::gpu
