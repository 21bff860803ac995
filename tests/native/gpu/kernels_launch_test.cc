// The kernels whole, launch code included, compiled for the host: cuda_on_host makes a loop of each
// launch. What a GPU would do at the same sizes is cuda_test's.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "gpu/kernels/kernels.h"
#include "kernel_cases.h"

namespace penstock::gpu {
namespace {

class HostMachine final : public KernelMachine {
 public:
  Memory Take(size_t size_bytes, size_t offset) override {
    constexpr size_t kBoundary = 256;
    void* block = nullptr;
    // The block ends where the memory does: AddressSanitizer sees a byte too many.
    if (posix_memalign(&block, kBoundary, offset + size_bytes) != 0) throw std::bad_alloc();
    std::memset(block, 0xee, offset + size_bytes);
    return {static_cast<uint8_t*>(block) + offset, [=](uint8_t* data) {
              // Nor was anything written in front of it.
              const auto is_untouched = [](uint8_t byte) { return byte == 0xee; };
              EXPECT_TRUE(std::all_of(data - offset, data, is_untouched));
              std::free(block);
            }};
  }
  void Write(uint8_t* to, const void* from, size_t size_bytes) override {
    std::memcpy(to, from, size_bytes);
  }
  void Read(void* to, const uint8_t* from, size_t size_bytes) override {
    std::memcpy(to, from, size_bytes);
  }
  cudaStream_t stream() override { return reinterpret_cast<cudaStream_t>(&stream_); }

 private:
  char stream_ = 0;
};

class KernelsLaunchTest : public ::testing::Test {
 protected:
  KernelsLaunchTest() { cuda_on_host::launches = {}; }

  HostMachine machine_;
};

TEST_F(KernelsLaunchTest, RowsOfEverySize_AreMovedWhole) { CheckRowsOfEverySize(machine_); }

TEST_F(KernelsLaunchTest, CastsOfEverySize_AreTheReferences) { CheckCastsOfEverySize(machine_); }

TEST_F(KernelsLaunchTest, ImagesOfEverySize_AreNormalisedAsTheReferenceDoes) {
  CheckImagesOfEverySize(machine_);
}

TEST_F(KernelsLaunchTest, MoreImagesThanAGridHas_AreAllNormalised) {
  CheckMoreImagesThanAGridHas(machine_);
}

TEST_F(KernelsLaunchTest, WhatIsEmptyOrRefused_IsNotLaunched) {
  CheckWhatIsNotLaunched(machine_);
  EXPECT_TRUE(cuda_on_host::launches.all.empty());
}

// What no memory holds is only written down.
TEST_F(KernelsLaunchTest, LargestSizes_AreLaunchedAsOneGridOnTheStream) {
  auto& launches = cuda_on_host::launches;
  launches.are_run = false;
  constexpr uint32_t kMostRows = 0x7fffffff;
  constexpr size_t kMostElements = size_t{kMostRows} * 256 * kPerThread;
  const auto stream = machine_.stream();
  EXPECT_EQ(GatherRows(nullptr, nullptr, kMostRows, SIZE_MAX, stream), cudaSuccess);
  EXPECT_EQ(ScatterRows(nullptr, nullptr, kMostRows, 1, stream), cudaSuccess);
  EXPECT_EQ(Cast(nullptr, Element::kBf16, nullptr, Element::kFp32, kMostElements, stream),
            cudaSuccess);
  const ImageBatch images{.images = UINT32_MAX, .pixels = kMostElements, .channels = 4};
  EXPECT_EQ(NormaliseImages(nullptr, Element::kFp16, nullptr, images, {}, stream), cudaSuccess);
  ASSERT_EQ(launches.all.size(), 4U);
  const unsigned expected_y[] = {64, 1, 1, 65'535};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(launches.all[i].gridDim.x, kMostRows) << i;
    EXPECT_EQ(launches.all[i].gridDim.y, expected_y[i]) << i;
    EXPECT_EQ(launches.all[i].blockDim.x, 256U) << i;
    EXPECT_EQ(launches.all[i].stream, stream) << i;
  }
}

}  // namespace
}  // namespace penstock::gpu
