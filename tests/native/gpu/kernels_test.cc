// The kernels' bodies on the host: each thread of a grid in turn, against a reference in float64.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <tuple>
#include <vector>

#include "gpu/kernels/row_math.h"
#include "reference.h"
#include "testing/row_kernel.h"

namespace penstock::gpu {
namespace {

// Bytes that begin `offset` behind a 16-byte boundary and end where the block does, so that
// AddressSanitizer sees one access too many.
template <typename T>
class Placed {
 public:
  Placed(size_t count, size_t offset) : bytes_(offset + count * sizeof(T)), offset_(offset) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes_.data()) % 16, 0U);
  }
  T* data() { return reinterpret_cast<T*>(bytes_.data() + offset_); }

 private:
  std::vector<uint8_t> bytes_;
  size_t offset_;
};

TEST(CopyRowTest, EverySizeAndAlignment_IsCopiedWhole) {
  for (size_t size = 1; size <= 70; ++size) {
    for (const auto& [to_offset, from_offset] :
         {std::pair<size_t, size_t>{0, 0}, {0, 1}, {3, 0}, {4, 4}, {8, 8}}) {
      Placed<uint8_t> to(size, to_offset);
      Placed<uint8_t> from(size, from_offset);
      std::iota(from.data(), from.data() + size, uint8_t{1});
      for (size_t thread = 0; thread < 5; ++thread)
        CopyRow(to.data(), from.data(), size, thread, 5);
      EXPECT_EQ(std::memcmp(to.data(), from.data(), size), 0) << size;
    }
  }
}

TEST(CopyRowTest, Threads_ShareARowWithoutOverlap) {
  std::vector<int> writes(1000);
  for (size_t thread = 0; thread < 7; ++thread) {
    Placed<uint8_t> to(writes.size(), 0);
    Placed<uint8_t> from(writes.size(), 0);
    std::memset(from.data(), 1, writes.size());
    CopyRow(to.data(), from.data(), writes.size(), thread, 7);
    for (size_t i = 0; i < writes.size(); ++i) writes[i] += to.data()[i];
  }
  EXPECT_THAT(writes, ::testing::Each(1));
}

TEST(HalfTest, EveryHalf_SurvivesFloat) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = Fp16::To(half);
    if (std::isnan(HalfValue(half, 5))) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_TRUE(std::isnan(Fp16::To(Fp16::From(value))));
    } else {
      ASSERT_EQ(static_cast<double>(value), HalfValue(half, 5)) << bits;
      ASSERT_EQ(Fp16::From(value), half);
    }
    const float brain = Bf16::To(half);
    if (std::isnan(brain)) {
      EXPECT_TRUE(std::isnan(Bf16::To(Bf16::From(brain))));
    } else {
      ASSERT_EQ(static_cast<double>(brain), HalfValue(half, 8)) << bits;
      ASSERT_EQ(Bf16::From(brain), half);
    }
  }
}

// Each step between two neighbours: its middle, and just beside the middle.
TEST(HalfTest, Rounding_IsToNearestTiesToEven) {
  for (uint32_t bits = 0; bits < 0x7bff; bits += 1) {
    const double low = HalfValue(static_cast<uint16_t>(bits), 5);
    const double high = HalfValue(static_cast<uint16_t>(bits + 1), 5);
    const auto middle = static_cast<float>((low + high) / 2);
    for (const float value :
         {std::nextafter(middle, -INFINITY), middle, std::nextafter(middle, INFINITY), -middle}) {
      ASSERT_EQ(Fp16::From(value), NearestHalf(value, 5)) << value;
    }
  }
  for (const float value : {65504.0F, 65519.99F, 65520.0F, 65536.0F, 3e38F, 1e-8F, 2.98e-8F,
                            2.9802322e-8F, 2.99e-8F, 0.0F, -0.0F}) {
    EXPECT_EQ(Fp16::From(value), NearestHalf(value, 5)) << value;
  }
  EXPECT_EQ(Fp16::From(INFINITY), 0x7c00);
  EXPECT_EQ(Fp16::From(-INFINITY), 0xfc00);
}

TEST(HalfTest, RandomFloats_AreRoundedAsTheReferenceDoes) {
  std::mt19937 random(1);
  for (int i = 0; i < 200'000; ++i) {
    const float value = BitsFloat(static_cast<uint32_t>(random()));
    if (!std::isfinite(value)) continue;
    ASSERT_EQ(Bf16::From(value), NearestHalf(value, 8)) << value;
    ASSERT_EQ(Fp16::From(value), NearestHalf(value, 5)) << value;
  }
}

template <typename To, typename From>
void CastAll(size_t count, size_t offset) {
  Placed<typename From::Bits> from(count, offset);
  Placed<typename To::Bits> to(count, offset);
  for (size_t i = 0; i < count; ++i) from.data()[i] = From::From(static_cast<float>(i) * 0.3F);
  // One thread more than is needed.
  for (size_t t = 0; t <= count / kPerThread + 1; ++t) {
    CastRun<To, From>(to.data(), from.data(), count, t);
  }
  for (size_t i = 0; i < count; ++i) {
    ASSERT_EQ(to.data()[i], To::From(From::To(from.data()[i]))) << i << " of " << count;
  }
}

TEST(CastTest, EveryCountAndAlignment_IsCastWhole) {
  for (size_t count = 0; count <= 50; ++count) {
    for (const size_t offset : {0U, 4U, 16U}) {
      CastAll<Fp16, Fp32>(count, offset);
      CastAll<Bf16, Fp32>(count, offset);
      CastAll<Fp32, Fp16>(count, offset);
      CastAll<Fp32, Bf16>(count, offset);
    }
  }
}

template <typename To, int kChannels>
void NormaliseAll(size_t images, size_t pixels, size_t offset) {
  const Normalisation n{{0.017F, 0.0175F, 0.0174F, 1.0F}, {-2.1F, -2.0F, -1.8F, 0.0F}};
  const size_t count = images * pixels * kChannels;
  std::vector<uint8_t> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(i * 37 % 251);
  Placed<uint8_t> from(count, offset);
  std::memcpy(from.data(), bytes.data(), count);
  Placed<typename To::Bits> to(count, 0);
  for (size_t image = 0; image < images; ++image) {
    const size_t at = image * pixels * kChannels;
    for (size_t t = 0; t <= pixels / kPerThread + 1; ++t) {
      NormaliseRun<To, kChannels>(to.data() + at, from.data() + at, pixels, n, t);
    }
  }
  const auto expected = NormalisedImages(bytes, pixels, kChannels, n.scale, n.bias);
  const double relative = sizeof(typename To::Bits) == 2 ? 0x1p-10 : 0x1p-22;
  for (size_t i = 0; i < count; ++i) {
    const double got = To::To(to.data()[i]);
    ASSERT_NEAR(got, expected[i], relative * (std::fabs(expected[i]) + 4)) << i;
  }
}

TEST(NormaliseTest, EverySizeOfAnImage_IsNormalisedWhole) {
  for (const size_t pixels : {1U, 15U, 16U, 17U, 31U, 32U, 48U, 49U, 224U}) {
    for (const size_t offset : {0U, 1U, 8U}) {
      NormaliseAll<Fp32, 1>(3, pixels, offset);
      NormaliseAll<Fp32, 3>(3, pixels, offset);
      NormaliseAll<Fp32, 4>(3, pixels, offset);
      NormaliseAll<Fp16, 3>(3, pixels, offset);
      NormaliseAll<Fp16, 1>(2, pixels, offset);
    }
  }
}

// The kernel of the tests' models: more threads than elements, and fewer.
TEST(RowWorkTest, ThreadsOfAGrid_ComputeEveryElementAndTrapWhereTheyAreTo) {
  constexpr size_t kRows = 3, kWidth = 37;
  std::vector<float> x(kRows * kWidth), b = {0.5F, 1.5F, 2.5F}, y(x.size());
  std::iota(x.begin(), x.end(), 0.0F);
  std::vector<uint32_t> n(kRows);
  std::vector<uint8_t> scratch(100);
  RowWork work{kRows, kWidth, x.data(), b.data(), y.data(), n.data(), scratch.data(), 100};
  for (const size_t threads : {1U, 5U, 64U, 1000U}) {
    std::fill(y.begin(), y.end(), -1.0F);
    std::fill(n.begin(), n.end(), 7U);
    std::fill(scratch.begin(), scratch.end(), uint8_t{0});
    for (size_t t = 0; t < threads; ++t) EXPECT_TRUE(RunRowWork(work, t, threads));
    for (size_t i = 0; i < y.size(); ++i) {
      ASSERT_EQ(y[i], 2 * x[i] + b[i / kWidth] + static_cast<float>(i / kWidth)) << threads;
    }
    EXPECT_THAT(n, ::testing::ElementsAre(0, 1, 2));
    EXPECT_THAT(scratch, ::testing::Each(kRows));
  }
  work.has_trap = true;
  work.trap_at = 1;  // no row begins with it
  EXPECT_TRUE(RunRowWork(work, 0, 1));
  work.trap_at = 2 * kWidth;
  size_t trapped = 0;
  for (size_t t = 0; t < 5; ++t) trapped += RunRowWork(work, t, 5) ? 0 : 1;
  EXPECT_EQ(trapped, 1U);
}

}  // namespace
}  // namespace penstock::gpu
