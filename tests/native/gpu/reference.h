// What the kernels must compute, in float64 and the plainest way there is.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace penstock::gpu {

// The value of 16 bits of binary16 (5 bits of exponent) or bfloat16 (8).
inline double HalfValue(uint16_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) return mantissa != 0 ? NAN : sign * INFINITY;
  const double fraction = std::ldexp(mantissa, -mantissa_bits) + (exponent != 0 ? 1 : 0);
  return sign * std::ldexp(fraction, std::max(exponent, 1) - bias);
}

// The nearest of all finite values of that type, the even one where two are as near; infinity from
// half a step beyond the largest. `value` is finite.
inline uint16_t NearestHalf(double value, int exponent_bits) {
  const auto sign = static_cast<uint16_t>(std::signbit(value) ? 0x8000 : 0);
  const uint16_t infinity =
      static_cast<uint16_t>(((1 << exponent_bits) - 1) << (15 - exponent_bits));
  const double magnitude = std::fabs(value);
  uint16_t below = 0;  // the largest that is not above, by bisection: values rise with their bits
  for (uint16_t above = infinity; above - below > 1;) {
    const auto middle = static_cast<uint16_t>((below + above) / 2);
    (HalfValue(middle, exponent_bits) <= magnitude ? below : above) = middle;
  }
  const auto next = static_cast<uint16_t>(below + 1);
  const double here = HalfValue(below, exponent_bits);
  const double step = next == infinity
                          ? here - HalfValue(static_cast<uint16_t>(below - 1), exponent_bits)
                          : HalfValue(next, exponent_bits) - here;
  const double middle = here + step / 2;
  const bool is_up = magnitude > middle || (magnitude == middle && (below & 1) != 0);
  return sign | (is_up ? next : below);
}

// Images of uint8 [images, pixels, channels] as [images, channels, pixels], y = x * scale + bias.
inline std::vector<double> NormalisedImages(const std::vector<uint8_t>& images, size_t pixels,
                                            int channels, const float* scale, const float* bias) {
  std::vector<double> planes(images.size());
  for (size_t i = 0; i < images.size(); ++i) {
    const size_t channel = i % static_cast<size_t>(channels);
    const size_t pixel = i / static_cast<size_t>(channels) % pixels;
    const size_t image = i / static_cast<size_t>(channels) / pixels;
    planes[(image * static_cast<size_t>(channels) + channel) * pixels + pixel] =
        static_cast<double>(images[i]) * scale[channel] + bias[channel];
  }
  return planes;
}

}  // namespace penstock::gpu
