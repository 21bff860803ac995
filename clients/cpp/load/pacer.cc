#include "load/pacer.h"

#include <cmath>

namespace penstock::load {

Pacer::Pacer(PacerOptions options, int64_t start_ns)
    : options_(options),
      measure_from_ns_(start_ns + options.warmup_ns),
      end_ns_(options.duration_ns > 0 ? measure_from_ns_ + options.duration_ns : kNever),
      random_(options.seed),
      arrival_ns_(start_ns) {
  if (is_open_loop()) arrival_ns_ += DrawGapNs();
}

std::optional<Pacer::Due> Pacer::Next(int64_t now_ns, size_t in_flight) {
  if (IsOver(now_ns) || NextNs(now_ns, in_flight) > now_ns) return std::nullopt;
  const int64_t intended_ns = IntendedNs(now_ns);
  const bool is_measured = intended_ns >= measure_from_ns_;
  if (is_measured) ++measured_;
  if (is_open_loop()) arrival_ns_ += DrawGapNs();
  return Due{intended_ns, is_measured};
}

int64_t Pacer::NextNs(int64_t now_ns, size_t in_flight) const {
  if (IsOver(now_ns) || in_flight >= options_.max_in_flight) return kNever;
  return IntendedNs(now_ns);
}

bool Pacer::IsOver(int64_t now_ns) const {
  if (options_.requests > 0 && measured_ >= options_.requests) return true;
  return IntendedNs(now_ns) >= end_ns_;
}

// Exponential gaps by inversion: the same seed gives the same arrivals with every standard library.
int64_t Pacer::DrawGapNs() {
  const double mean_ns = 1e9 / options_.rate;
  double gap_ns = mean_ns;
  if (options_.arrivals == Arrivals::kPoisson) {
    const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;  // [0, 1)
    gap_ns = -std::log1p(-uniform) * mean_ns;
  }
  gap_ns += remainder_ns_;
  const double whole = std::floor(gap_ns);
  remainder_ns_ = gap_ns - whole;
  return static_cast<int64_t>(whole);
}

}  // namespace penstock::load
