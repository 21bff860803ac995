#include "load/report.h"

#include <cstdio>
#include <utility>

#include "base/strcat.h"

namespace penstock::load {
namespace {

std::string Fixed(double value) {
  std::array<char, 64> text;
  const int size = std::snprintf(text.data(), text.size(), "%.2f", value);
  return {text.data(), static_cast<size_t>(size)};
}

std::string Microseconds(int64_t ns) { return Fixed(static_cast<double>(ns) / 1e3); }

// Bytes that a server sent, as a JSON string: what is not printable ASCII becomes \u00XX.
std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F) {
      std::array<char, 8> escape;
      std::snprintf(escape.data(), escape.size(), "\\u%04x", byte);
      quoted += escape.data();
    } else {
      if (c == '"' || c == '\\') quoted += '\\';
      quoted += c;
    }
  }
  return quoted + '"';
}

constexpr std::array<std::pair<std::string_view, double>, 4> kPercentiles = {
    {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}}};

std::string PercentilesText(const Histogram& histogram) {
  std::string text;
  for (const auto& [name, percent] : kPercentiles) {
    text += StrCat(name, " ", Microseconds(histogram.Percentile(percent)), ", ");
  }
  return StrCat(text, "max ", Microseconds(histogram.max()), ", mean ",
                Fixed(histogram.mean() / 1e3), " us");
}

std::string PercentilesJson(const Histogram& histogram) {
  std::string text = "{";
  for (const auto& [name, percent] : kPercentiles) {
    text += StrCat(Quoted(name), ": ", Microseconds(histogram.Percentile(percent)), ", ");
  }
  return StrCat(text, "\"max\": ", Microseconds(histogram.max()),
                ", \"mean\": ", Fixed(histogram.mean() / 1e3), "}");
}

}  // namespace

uint64_t Report::failed() const {
  uint64_t count = 0;
  for (size_t i = 1; i < outcomes.size(); ++i) count += outcomes[i].count;
  return count;
}

double Report::rate() const {
  return measured_ns == 0 ? 0 : static_cast<double>(latency.count()) * 1e9 / measured_ns;
}

std::string Report::ToText() const {
  std::string text =
      StrCat("answered ", latency.count(), " of ", measured, " measured requests in ",
             Fixed(static_cast<double>(measured_ns) / 1e9), " s: ", Fixed(rate()), " req/s");
  if (target_rate > 0) text += StrCat(" (", Fixed(target_rate), " wanted)");
  text += StrCat("\nlatency   ", PercentilesText(latency), "\n");
  if (target_rate > 0) text += StrCat("sent late ", PercentilesText(lateness), "\n");
  if (reconnects > 0) text += StrCat("connections replaced: ", reconnects, "\n");
  for (size_t i = 1; i < outcomes.size(); ++i) {
    if (outcomes[i].count == 0) continue;
    text += StrCat("failed    ", outcomes[i].count, " x ", OutcomeName(i), ": ", outcomes[i].first,
                   "\n");
  }
  if (!ended_early.empty()) text += StrCat("ended early: ", ended_early, "\n");
  return text;
}

std::string Report::ToJson() const {
  std::string failures;
  for (size_t i = 1; i < outcomes.size(); ++i) {
    if (outcomes[i].count == 0) continue;
    failures += StrCat(failures.empty() ? "" : ", ", Quoted(OutcomeName(i)),
                       ": {\"count\": ", outcomes[i].count,
                       ", \"first\": ", Quoted(outcomes[i].first), "}");
  }
  return StrCat("{\"sent\": ", sent, ", \"measured\": ", measured, ", \"ok\": ", latency.count(),
                ", \"failed\": ", failed(), ", \"failures\": {", failures,
                "}, \"seconds\": ", Fixed(static_cast<double>(measured_ns) / 1e9),
                ", \"rate\": ", Fixed(rate()), ", \"target_rate\": ", Fixed(target_rate),
                ", \"latency_us\": ", PercentilesJson(latency),
                ", \"sent_late_us\": ", PercentilesJson(lateness), ", \"reconnects\": ", reconnects,
                ", \"ended_early\": ", Quoted(ended_early), "}\n");
}

}  // namespace penstock::load
