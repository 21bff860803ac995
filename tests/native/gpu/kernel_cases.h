// What kernels must do at every size and alignment where something changes, against the reference:
// for kernels that run on a GPU (cuda_test) and for those whose launch is a loop on the host
// (kernels_launch_test, where AddressSanitizer sees what they touch).

#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gpu/kernels/kernels.h"
#include "reference.h"

namespace penstock::gpu {

// Where kernels run, and memory there.
class KernelMachine {
 public:
  using Memory = std::shared_ptr<uint8_t>;

  virtual ~KernelMachine() = default;

  // `size_bytes` and none behind them, `offset` bytes behind a boundary of 256.
  virtual Memory Take(size_t size_bytes, size_t offset) = 0;
  virtual void Write(uint8_t* to, const void* from, size_t size_bytes) = 0;
  // What lies there when all that was enqueued is done.
  virtual void Read(void* to, const uint8_t* from, size_t size_bytes) = 0;
  virtual cudaStream_t stream() = 0;

  template <typename T>
  Memory TakeCopy(const std::vector<T>& values, size_t offset) {
    Memory memory = Take(values.size() * sizeof(T), offset);
    Write(memory.get(), values.data(), values.size() * sizeof(T));
    return memory;
  }
  template <typename T>
  std::vector<T> Get(const Memory& memory, size_t count) {
    std::vector<T> values(count);
    Read(values.data(), memory.get(), count * sizeof(T));
    return values;
  }
};

inline std::vector<uint8_t> SomeBytes(size_t count, size_t seed = 0) {
  std::vector<uint8_t> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>((i + seed) * 37 % 251);
  return bytes;
}

// `rows` rows, each in memory of its own, `offset` behind a boundary; gathered and scattered.
inline void CheckRows(KernelMachine& machine, uint32_t rows, size_t row_bytes, size_t offset) {
  SCOPED_TRACE(testing::Message() << rows << " rows of " << row_bytes << " bytes at " << offset);
  std::vector<KernelMachine::Memory> each;
  std::vector<void*> addresses;
  std::vector<uint8_t> expected;
  for (uint32_t i = 0; i < rows; ++i) {
    const auto bytes = SomeBytes(row_bytes, i * 11);
    each.push_back(machine.TakeCopy(bytes, offset));
    addresses.push_back(each.back().get());
    expected.insert(expected.end(), bytes.begin(), bytes.end());
  }
  const auto table = machine.TakeCopy(addresses, 0);
  auto* pointers = reinterpret_cast<void**>(table.get());
  const auto whole = machine.Take(expected.size(), offset);
  ASSERT_EQ(GatherRows(whole.get(), pointers, rows, row_bytes, machine.stream()), cudaSuccess);
  ASSERT_TRUE(machine.Get<uint8_t>(whole, expected.size()) == expected);

  for (size_t i = 0; i < expected.size(); ++i) expected[i] ^= 0xffU;
  machine.Write(whole.get(), expected.data(), expected.size());
  ASSERT_EQ(ScatterRows(pointers, whole.get(), rows, row_bytes, machine.stream()), cudaSuccess);
  for (uint32_t i = 0; i < rows; ++i) {
    const auto row = machine.Get<uint8_t>(each[i], row_bytes);
    ASSERT_EQ(std::memcmp(row.data(), expected.data() + i * row_bytes, row_bytes), 0) << i;
  }
}

inline void CheckRowsOfEverySize(KernelMachine& machine) {
  // 64 blocks of a row copy 256 KiB at once, and what is longer in several rounds.
  for (const size_t row_bytes : {1U, 15U, 16U, 17U, 100U, 4095U, 4096U, 4097U, 150'000U, 270'001U})
    for (const size_t offset : {0U, 1U, 8U}) CheckRows(machine, 3, row_bytes, offset);
  CheckRows(machine, 1, 24, 0);
  CheckRows(machine, 2000, 3, 1);
}

// A float for each number, of all magnitudes that 16 bits have and of more.
inline float SomeFloat(size_t i) {
  const float value = BitsFloat(static_cast<uint32_t>(i) * 2'654'435'761U);
  return std::isfinite(value) ? value : static_cast<float>(i);
}

inline void CheckNarrowing(KernelMachine& machine, Element type, size_t count, size_t step) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = SomeFloat(i);
  const auto from = machine.TakeCopy(values, step * sizeof(float));
  const auto to = machine.Take(count * sizeof(uint16_t), step * sizeof(uint16_t));
  ASSERT_EQ(Cast(to.get(), type, from.get(), Element::kFp32, count, machine.stream()), cudaSuccess);
  const auto halves = machine.Get<uint16_t>(to, count);
  for (size_t i = 0; i < count; ++i) {
    ASSERT_EQ(halves[i], NearestHalf(values[i], type == Element::kFp16 ? 5 : 8))
        << i << " of " << count;
  }
}

inline void CheckWidening(KernelMachine& machine, Element type, size_t count, size_t step) {
  std::vector<uint16_t> halves(count);
  for (size_t i = 0; i < count; ++i) halves[i] = static_cast<uint16_t>(i * 40'503U);
  const auto from = machine.TakeCopy(halves, step * sizeof(uint16_t));
  const auto to = machine.Take(count * sizeof(float), step * sizeof(float));
  ASSERT_EQ(Cast(to.get(), Element::kFp32, from.get(), type, count, machine.stream()), cudaSuccess);
  const auto values = machine.Get<float>(to, count);
  for (size_t i = 0; i < count; ++i) {
    const double expected = HalfValue(halves[i], type == Element::kFp16 ? 5 : 8);
    const double got = values[i];
    ASSERT_TRUE(got == expected || (std::isnan(got) && std::isnan(expected)))
        << i << " of " << count;
  }
}

inline void CheckCastsOfEverySize(KernelMachine& machine) {
  for (const Element type : {Element::kFp16, Element::kBf16}) {
    for (const size_t count : {1U, 7U, 15U, 16U, 17U, 4095U, 4096U, 4097U, 12'289U}) {
      for (const size_t step : {0U, 1U, 4U, 8U}) {  // elements behind a boundary
        CheckNarrowing(machine, type, count, step);
        CheckWidening(machine, type, count, step);
      }
    }
  }
}

struct ImageCase {
  ImageBatch batch;
  Element type = Element::kFp32;
  size_t from_offset = 0;
  size_t to_step = 0;  // elements behind a boundary
};

inline void CheckImages(KernelMachine& machine, const ImageCase& images) {
  const ImageBatch& batch = images.batch;
  SCOPED_TRACE(testing::Message() << batch.images << " images of " << batch.pixels << " pixels, "
                                  << batch.channels << " channels, at " << images.from_offset
                                  << " and " << images.to_step);
  const bool is_half = images.type == Element::kFp16;
  const Normalisation n{{0.017F, 0.0175F, 0.0174F, 1.0F}, {-2.1F, -2.0F, -1.8F, 0.5F}};
  const auto bytes = SomeBytes(batch.images * batch.pixels * static_cast<size_t>(batch.channels));
  const size_t element_bytes = is_half ? sizeof(uint16_t) : sizeof(float);
  const auto from = machine.TakeCopy(bytes, images.from_offset);
  const auto to = machine.Take(bytes.size() * element_bytes, images.to_step * element_bytes);
  ASSERT_EQ(NormaliseImages(to.get(), images.type, from.get(), batch, n, machine.stream()),
            cudaSuccess);
  const auto expected = NormalisedImages(bytes, batch.pixels, batch.channels, n.scale, n.bias);
  std::vector<double> got;
  if (is_half) {
    for (const uint16_t half : machine.Get<uint16_t>(to, bytes.size()))
      got.push_back(HalfValue(half, 5));
  } else {
    const auto values = machine.Get<float>(to, bytes.size());
    got.assign(values.begin(), values.end());
  }
  const double relative = is_half ? 0x1p-10 : 0x1p-22;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], expected[i], relative * (std::fabs(expected[i]) + 4)) << i;
  }
}

inline void CheckImagesOfEverySize(KernelMachine& machine) {
  for (const Element type : {Element::kFp32, Element::kFp16}) {
    for (const int channels : {1, 3, 4}) {
      for (const size_t pixels : {1U, 5U * 3U, 16U, 17U, 7U * 7U, 4096U, 4097U, 161U * 159U}) {
        for (const auto& [offset, step] : {std::pair{0U, 0U}, {1U, 1U}, {16U, 8U}}) {
          const ImageBatch batch{.images = 3, .pixels = pixels, .channels = channels};
          CheckImages(machine, {batch, type, offset, step});
        }
      }
    }
  }
}

// A grid has 65,535 images at most: the first blocks go on with those behind.
inline void CheckMoreImagesThanAGridHas(KernelMachine& machine) {
  const std::pair<uint32_t, int> cases[] = {{65'535, 3}, {65'536, 1}, {65'536, 4}, {131'073, 3}};
  for (const auto& [images, channels] : cases) {
    const ImageBatch batch{.images = images, .pixels = 1, .channels = channels};
    CheckImages(machine, {batch, Element::kFp16});
  }
}

// Answers that enqueue nothing.
inline void CheckWhatIsNotLaunched(KernelMachine& machine) {
  const cudaStream_t stream = machine.stream();
  const Normalisation n;
  EXPECT_EQ(GatherRows(nullptr, nullptr, 0, 16, stream), cudaSuccess);
  EXPECT_EQ(GatherRows(nullptr, nullptr, 2, 0, stream), cudaSuccess);
  EXPECT_EQ(ScatterRows(nullptr, nullptr, 0, 16, stream), cudaSuccess);
  EXPECT_EQ(ScatterRows(nullptr, nullptr, 2, 0, stream), cudaSuccess);
  EXPECT_EQ(Cast(nullptr, Element::kFp16, nullptr, Element::kFp32, 0, stream), cudaSuccess);
  EXPECT_EQ(
      NormaliseImages(nullptr, Element::kFp32, nullptr, {.images = 0, .pixels = 1}, n, stream),
      cudaSuccess);
  EXPECT_EQ(
      NormaliseImages(nullptr, Element::kFp16, nullptr, {.images = 1, .pixels = 0}, n, stream),
      cudaSuccess);

  const auto is_refused = [&](Element to, Element from, size_t count) {
    return Cast(nullptr, to, nullptr, from, count, stream) == cudaErrorInvalidValue;
  };
  for (const Element type : {Element::kFp32, Element::kFp16, Element::kBf16})
    EXPECT_TRUE(is_refused(type, type, 1));
  EXPECT_TRUE(is_refused(Element::kFp16, Element::kBf16, 1));
  EXPECT_TRUE(is_refused(Element::kBf16, Element::kFp16, 1));
  const auto images_of = [&](Element type, const ImageBatch& batch) {
    return NormaliseImages(nullptr, type, nullptr, batch, n, stream);
  };
  for (const int channels : {-1, 0, 2, 5}) {
    const ImageBatch batch{.images = 1, .pixels = 1, .channels = channels};
    EXPECT_EQ(images_of(Element::kFp32, batch), cudaErrorInvalidValue) << channels;
    EXPECT_EQ(images_of(Element::kFp16, batch), cudaErrorInvalidValue) << channels;
  }
  EXPECT_EQ(images_of(Element::kBf16, {.images = 1, .pixels = 1}), cudaErrorInvalidValue);

  // More than the blocks of a grid take.
  constexpr uint32_t kMostRows = 0x7fffffff;
  constexpr size_t kMostElements = size_t{kMostRows} * 256 * kPerThread;
  EXPECT_EQ(GatherRows(nullptr, nullptr, kMostRows + 1, 16, stream), cudaErrorInvalidValue);
  EXPECT_EQ(ScatterRows(nullptr, nullptr, UINT32_MAX, 16, stream), cudaErrorInvalidValue);
  for (const size_t count : {kMostElements + 1, SIZE_MAX}) {
    EXPECT_TRUE(is_refused(Element::kFp16, Element::kFp32, count));
    EXPECT_TRUE(is_refused(Element::kFp32, Element::kBf16, count));
    EXPECT_EQ(images_of(Element::kFp32, {.images = 1, .pixels = count}), cudaErrorInvalidValue);
  }
}

}  // namespace penstock::gpu
