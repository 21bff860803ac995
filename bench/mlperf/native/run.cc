#include "native/run.h"

#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "base/strcat.h"
#include "loadgen.h"
#include "query_dispatch_library.h"
#include "query_sample_library.h"
#include "system_under_test.h"
#include "test_settings.h"

namespace penstock::loadgen {
namespace {

using ::mlperf::TestMode;
using ::mlperf::TestScenario;
using ::mlperf::TestSettings;

constexpr size_t kMany = 1 << 16;

// What LoadGen drives. `Base` is all that tells a system behind a network from one in the process.
template <typename Base>
class Sut final : public Base {
 public:
  Sut(const RunOptions& options, Target* target, Recorder* recorder)
      : options_(options), target_(*target), recorder_(*recorder) {}

  const std::string& Name() override {
    name_ = options_.name();
    return name_;
  }
  void IssueQuery(const std::vector<::mlperf::QuerySample>& samples) override {
    queries_.clear();
    queries_.reserve(samples.size());
    for (const auto& sample : samples) queries_.push_back({sample.id, sample.index});
    recorder_.CountIssued(queries_.size());
    target_.Issue(queries_);
    if (queries_.size() > kMany) queries_ = {};  // Offline's are gigabytes
  }
  void FlushQueries() override {}  // nothing is held back

 private:
  const RunOptions& options_;
  Target& target_;
  Recorder& recorder_;
  std::string name_;
  std::vector<Query> queries_;
};

// Samples are in memory all the time.
class Library final : public ::mlperf::QuerySampleLibrary {
 public:
  explicit Library(const RunOptions& options) : options_(options) {}

  const std::string& Name() override { return options_.library; }
  size_t TotalSampleCount() override { return options_.samples; }
  size_t PerformanceSampleCount() override { return options_.samples; }
  void LoadSamplesToRam(const std::vector<::mlperf::QuerySampleIndex>&) override {}
  void UnloadSamplesFromRam(const std::vector<::mlperf::QuerySampleIndex>&) override {}

 private:
  const RunOptions& options_;
};

struct WholeField {
  std::string_view name;
  uint64_t TestSettings::*field;
};
constexpr std::array kWholeFields = {
    WholeField{"min_duration_ms", &TestSettings::min_duration_ms},
    WholeField{"min_query_count", &TestSettings::min_query_count},
    WholeField{"qsl_rng_seed", &TestSettings::qsl_rng_seed},
    WholeField{"sample_index_rng_seed", &TestSettings::sample_index_rng_seed},
    WholeField{"schedule_rng_seed", &TestSettings::schedule_rng_seed},
    WholeField{"multi_stream_samples_per_query", &TestSettings::multi_stream_samples_per_query},
    WholeField{"server_target_latency_ns", &TestSettings::server_target_latency_ns},
};

struct RealField {
  std::string_view name;
  double TestSettings::*field;
};
constexpr std::array kRealFields = {
    RealField{"single_stream_expected_latency_ns",
              &TestSettings::single_stream_expected_latency_ns},
    RealField{"multi_stream_expected_latency_ns", &TestSettings::multi_stream_expected_latency_ns},
    RealField{"multi_stream_target_latency_percentile",
              &TestSettings::multi_stream_target_latency_percentile},
    RealField{"server_target_qps", &TestSettings::server_target_qps},
    RealField{"server_target_latency_percentile", &TestSettings::server_target_latency_percentile},
    RealField{"offline_expected_qps", &TestSettings::offline_expected_qps},
};

Status SetField(const std::string& name, const std::variant<uint64_t, double>& value,
                TestSettings* settings) {
  for (const WholeField& each : kWholeFields) {
    if (each.name != name) continue;
    const auto* const whole = std::get_if<uint64_t>(&value);
    if (whole == nullptr) return InvalidArgument(StrCat("setting ", name, " must be whole"));
    settings->*each.field = *whole;
    return Status::Ok();
  }
  for (const RealField& each : kRealFields) {
    if (each.name != name) continue;
    settings->*each.field =
        std::visit([](auto number) { return static_cast<double>(number); }, value);
    return Status::Ok();
  }
  return InvalidArgument(StrCat("LoadGen has no setting ", name, " that is passed on"));
}

// The enumerator of that name.
template <typename Enum, size_t kCount>
Status Choose(const std::array<std::pair<std::string_view, Enum>, kCount>& known,
              const std::string& name, Enum* chosen) {
  for (const auto& [each, value] : known) {
    if (each != name) continue;
    *chosen = value;
    return Status::Ok();
  }
  return InvalidArgument(StrCat("LoadGen has no scenario or mode ", name));
}

Result<TestSettings> MakeSettings(const RunOptions& options) {
  constexpr std::array<std::pair<std::string_view, TestScenario>, 4> kScenarios = {{
      {"SingleStream", TestScenario::SingleStream},
      {"MultiStream", TestScenario::MultiStream},
      {"Server", TestScenario::Server},
      {"Offline", TestScenario::Offline},
  }};
  constexpr std::array<std::pair<std::string_view, TestMode>, 2> kModes = {{
      {"PerformanceOnly", TestMode::PerformanceOnly},
      {"AccuracyOnly", TestMode::AccuracyOnly},
  }};
  TestSettings settings;
  PENSTOCK_RETURN_IF_ERROR(Choose(kScenarios, options.scenario, &settings.scenario));
  PENSTOCK_RETURN_IF_ERROR(Choose(kModes, options.mode, &settings.mode));
  for (const auto& [name, value] : options.settings) {
    PENSTOCK_RETURN_IF_ERROR(SetField(name, value, &settings));
  }
  return settings;
}

void Complete(std::span<const Response> responses) {
  thread_local std::vector<::mlperf::QuerySampleResponse> told;
  told.clear();
  for (const Response& each : responses) {
    told.emplace_back(each.id, reinterpret_cast<uintptr_t>(each.data.data()), each.data.size());
  }
  ::mlperf::QuerySamplesComplete(told.data(), told.size());
}

}  // namespace

Status RunLoadGen(const RunOptions& options, Target* target, Recorder* recorder) {
  PENSTOCK_ASSIGN_OR_RETURN(const TestSettings settings, MakeSettings(options));
  ::mlperf::LogSettings log;
  log.log_output.outdir = options.output;
  log.enable_trace = false;
  recorder->SetComplete(&Complete);
  Library library(options);
  Sut<::mlperf::QueryDispatchLibrary> behind_network(options, target, recorder);
  Sut<::mlperf::SystemUnderTest> in_process(options, target, recorder);
  ::mlperf::SystemUnderTest* sut = &in_process;
  if (options.is_network) sut = &behind_network;
  ::mlperf::StartTest(sut, &library, settings, log);
  return Status::Ok();
}

}  // namespace penstock::loadgen
