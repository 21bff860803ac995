// What the kernels compute, thread by thread: plain functions of a thread's number, compiled for
// the device by CUDA's compiler and for the host by any, where tests run them for every thread of a
// grid and AddressSanitizer sees what they touch. Includes nothing of ours.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define PENSTOCK_ANYWHERE __host__ __device__ inline
#else
#define PENSTOCK_ANYWHERE inline
#endif

namespace penstock::gpu {

// 16 bytes that are loaded and stored by one instruction.
struct __attribute__((may_alias, aligned(16))) Vec16 {
  uint32_t words[4];
};
inline constexpr size_t kVecBytes = sizeof(Vec16);

PENSTOCK_ANYWHERE bool IsVecAligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % kVecBytes == 0;
}

// Thread `thread` of `threads` copies its share of a row: 16 bytes at a time where both ends are
// aligned, then the tail byte by byte.
PENSTOCK_ANYWHERE void CopyRow(uint8_t* to, const uint8_t* from, size_t size_bytes, size_t thread,
                               size_t threads) {
  size_t begin = 0;
  if (IsVecAligned(to) && IsVecAligned(from)) {
    const size_t vecs = size_bytes / kVecBytes;
    for (size_t i = thread; i < vecs; i += threads) {
      reinterpret_cast<Vec16*>(to)[i] = reinterpret_cast<const Vec16*>(from)[i];
    }
    begin = vecs * kVecBytes;
  }
  for (size_t i = begin + thread; i < size_bytes; i += threads) to[i] = from[i];
}

// ---- 16-bit floating point, as bits; rounded to nearest, ties to even

PENSTOCK_ANYWHERE uint32_t FloatBits(float value) {
  uint32_t bits = 0;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

PENSTOCK_ANYWHERE float BitsFloat(uint32_t bits) {
  float value = 0;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

// `bits` >> shift, rounded to nearest, ties to even. REQUIRES: 0 < shift < 32.
PENSTOCK_ANYWHERE uint32_t ShiftRounded(uint32_t bits, uint32_t shift) {
  const uint32_t half = uint32_t{1} << (shift - 1);
  const uint32_t rest = bits & ((half << 1) - 1);
  const uint32_t kept = bits >> shift;
  return kept + ((rest > half || (rest == half && (kept & 1U) != 0)) ? 1U : 0U);
}

PENSTOCK_ANYWHERE uint16_t ToFp16Portable(float value) {
  const uint32_t bits = FloatBits(value);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<uint16_t>(sign | 0x7fffU);   // not a number
  if (magnitude >= 0x477ff000U) return static_cast<uint16_t>(sign | 0x7c00U);  // too large
  if (magnitude >= 0x38800000U) {
    return static_cast<uint16_t>(sign | (ShiftRounded(magnitude, 13) - (112U << 10)));
  }
  if (magnitude < 0x33000000U) return static_cast<uint16_t>(sign);  // under half the smallest
  const uint32_t mantissa = (magnitude & 0x7fffffU) | 0x800000U;
  return static_cast<uint16_t>(sign | ShiftRounded(mantissa, 126 - (magnitude >> 23)));
}

PENSTOCK_ANYWHERE uint16_t ToBf16Portable(float value) {
  const uint32_t bits = FloatBits(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return 0x7fffU;
  return static_cast<uint16_t>(ShiftRounded(bits, 16));
}

PENSTOCK_ANYWHERE float FromFp16Portable(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fU;
  const uint32_t mantissa = half & 0x3ffU;
  if (exponent == 0x1fU) return BitsFloat(sign | 0x7f800000U | (mantissa << 13));
  if (exponent != 0) return BitsFloat(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
  return sign != 0 ? -magnitude : magnitude;
}

// Element types of the kernels: how one is made of a float, and the other way.
struct Fp32 {
  using Bits = float;
  static PENSTOCK_ANYWHERE Bits From(float value) { return value; }
  static PENSTOCK_ANYWHERE float To(Bits bits) { return bits; }
};

struct Fp16 {
  using Bits = uint16_t;
  static PENSTOCK_ANYWHERE Bits From(float value) {
#if defined(__CUDA_ARCH__)
    return __half_as_ushort(__float2half_rn(value));
#else
    return ToFp16Portable(value);
#endif
  }
  static PENSTOCK_ANYWHERE float To(Bits bits) {
#if defined(__CUDA_ARCH__)
    return __half2float(__ushort_as_half(bits));
#else
    return FromFp16Portable(bits);
#endif
  }
};

struct Bf16 {
  using Bits = uint16_t;
  static PENSTOCK_ANYWHERE Bits From(float value) {
#if defined(__CUDA_ARCH__)
    return __bfloat16_as_ushort(__float2bfloat16_rn(value));
#else
    return ToBf16Portable(value);
#endif
  }
  static PENSTOCK_ANYWHERE float To(Bits bits) {
    return BitsFloat(static_cast<uint32_t>(bits) << 16);
  }
};

// ---- elements one after the other, `kPerThread` at a time

inline constexpr size_t kPerThread = 16;

// `count` elements of type T, at most kPerThread, in 16-byte stores where they are all there and
// the memory is aligned.
template <typename T>
PENSTOCK_ANYWHERE void StoreRun(T* to, const T* values, size_t count) {
  constexpr size_t kVecs = kPerThread * sizeof(T) / kVecBytes;
  if (count == kPerThread && IsVecAligned(to)) {
    for (size_t i = 0; i < kVecs; ++i) {
      Vec16 vec;
      memcpy(&vec, values + i * (kVecBytes / sizeof(T)), kVecBytes);
      reinterpret_cast<Vec16*>(to)[i] = vec;
    }
    return;
  }
  for (size_t i = 0; i < count; ++i) to[i] = values[i];
}

template <typename T>
PENSTOCK_ANYWHERE void LoadRun(T* values, const T* from, size_t count) {
  constexpr size_t kVecs = kPerThread * sizeof(T) / kVecBytes;
  if (count == kPerThread && IsVecAligned(from)) {
    for (size_t i = 0; i < kVecs; ++i) {
      const Vec16 vec = reinterpret_cast<const Vec16*>(from)[i];
      memcpy(values + i * (kVecBytes / sizeof(T)), &vec, kVecBytes);
    }
    return;
  }
  for (size_t i = 0; i < count; ++i) values[i] = from[i];
}

// Thread `thread` casts elements thread * kPerThread and on.
template <typename To, typename From>
PENSTOCK_ANYWHERE void CastRun(typename To::Bits* to, const typename From::Bits* from, size_t count,
                               size_t thread) {
  const size_t begin = thread * kPerThread;
  if (begin >= count) return;
  const size_t run = count - begin < kPerThread ? count - begin : kPerThread;
  typename From::Bits in[kPerThread];
  typename To::Bits out[kPerThread];
  LoadRun(in, from + begin, run);
  for (size_t i = 0; i < run; ++i) out[i] = To::From(From::To(in[i]));
  StoreRun(to + begin, out, run);
}

// ---- images

inline constexpr int kMaxChannels = 4;

// y = x * scale + bias, for each channel.
struct Normalisation {
  float scale[kMaxChannels] = {};
  float bias[kMaxChannels] = {};
};

// Thread `thread` of an image takes pixels thread * kPerThread and on: kChannels bytes each, next
// to each other, to kChannels planes of `pixels` elements.
template <typename To, int kChannels>
PENSTOCK_ANYWHERE void NormaliseRun(typename To::Bits* planes, const uint8_t* image, size_t pixels,
                                    const Normalisation& n, size_t thread) {
  const size_t begin = thread * kPerThread;
  if (begin >= pixels) return;
  const size_t run = pixels - begin < kPerThread ? pixels - begin : kPerThread;
  uint8_t in[kPerThread * kChannels];
  const uint8_t* from = image + begin * kChannels;
  for (int part = 0; part < kChannels; ++part) {
    const size_t done = static_cast<size_t>(part) * kPerThread;
    const size_t left = run * kChannels > done ? run * kChannels - done : 0;
    LoadRun(in + done, from + done, left < kPerThread ? left : kPerThread);
  }
  for (int c = 0; c < kChannels; ++c) {
    typename To::Bits out[kPerThread];
    for (size_t i = 0; i < run; ++i) {
      out[i] = To::From(static_cast<float>(in[i * kChannels + c]) * n.scale[c] + n.bias[c]);
    }
    StoreRun(planes + static_cast<size_t>(c) * pixels + begin, out, run);
  }
}

}  // namespace penstock::gpu
