#include "load/flags.h"

#include <charconv>
#include <fstream>
#include <functional>
#include <iterator>
#include <string_view>
#include <utility>

#include "base/strcat.h"

namespace penstock::load {
namespace {

constexpr std::string_view kUnaryPath = "/inference.GRPCInferenceService/ModelInfer";
constexpr std::string_view kStreamPath = "/inference.GRPCInferenceService/ModelStreamInfer";

template <typename T>
Status ParseNumber(const std::string& text, T least, T* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  if (error != std::errc() || end != text.data() + text.size() || !(*value >= least)) {
    return InvalidArgument(StrCat("expected a number of at least ", least, ", got \"", text, "\""));
  }
  return Status::Ok();
}

Status ParseSeconds(const std::string& text, int64_t* ns) {
  double seconds = 0;
  PENSTOCK_RETURN_IF_ERROR(ParseNumber(text, 0.0, &seconds));
  if (seconds > 1e9) return InvalidArgument(StrCat("\"", text, "\" seconds are too many"));
  *ns = static_cast<int64_t>(seconds * 1e9);
  return Status::Ok();
}

Status ParseAddress(const std::string& text, Target* target) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) {
    return InvalidArgument(StrCat("expected HOST:PORT, got \"", text, "\""));
  }
  target->host = text.substr(0, colon);
  if (target->host.front() == '[' && target->host.back() == ']') {
    target->host = target->host.substr(1, target->host.size() - 2);
  }
  return ParseNumber<uint16_t>(text.substr(colon + 1), 1, &target->port);
}

Status ReadFile(const std::string& path, std::string* bytes) {
  std::ifstream file(path, std::ios::binary);
  bytes->assign(std::istreambuf_iterator<char>(file), {});
  if (!file) return InvalidArgument(StrCat("the file ", path, " cannot be read"));
  return Status::Ok();
}

Status AddRequest(const std::string& path, Flags* flags) {
  flags->samples.emplace_back();
  return ReadFile(path, &flags->samples.back().request);
}

Status AddExpected(const std::string& path, Flags* flags) {
  if (flags->samples.empty()) return InvalidArgument("it belongs behind a --request");
  return ReadFile(path, &flags->samples.back().expected.emplace());
}

Status AddMetadata(const std::string& text, Flags* flags) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return InvalidArgument(StrCat("expected KEY=VALUE, got \"", text, "\""));
  }
  flags->run.fleet.target.metadata.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  return Status::Ok();
}

Status SetArrivals(const std::string& text, Flags* flags) {
  if (text != "poisson" && text != "constant") {
    return InvalidArgument(StrCat("expected poisson or constant, got \"", text, "\""));
  }
  flags->run.pacer.arrivals = text == "poisson" ? Arrivals::kPoisson : Arrivals::kConstant;
  return Status::Ok();
}

Status SetSwitch(bool* on) {
  *on = true;
  return Status::Ok();
}

struct Flag {
  std::string_view name;
  std::string_view value;  // what to call it; "" = the flag takes none
  std::string_view help;
  std::function<Status(const std::string&, Flags*)> set;
};

const std::vector<Flag>& TargetFlags() {
  static const auto& flags = *new std::vector<Flag>{
      {"--address", "HOST:PORT", "the server",
       [](const auto& text, Flags* f) { return ParseAddress(text, &f->run.fleet.target); }},
      {"--path", "/pkg.Service/Method",
       "what is called (ModelInfer; ModelStreamInfer with streams)",
       [](const auto& text, Flags* f) {
         f->workload.path = text;
         return Status::Ok();
       }},
      {"--connections", "N", "connections (1)",
       [](const auto& text, Flags* f) {
         return ParseNumber<size_t>(text, 1, &f->run.fleet.connections);
       }},
      {"--streams", "N", "long-lived streams, spread over the connections, instead of unary calls",
       [](const auto& text, Flags* f) {
         return ParseNumber<size_t>(text, 1, &f->run.fleet.streams);
       }},
      {"--responses", "N", "messages that answer one on a stream: of decoupled models (1)",
       [](const auto& text, Flags* f) {
         return ParseNumber<size_t>(text, 1, &f->run.fleet.target.responses);
       }},
      {"--timeout", "SECONDS", "deadline of each call, told to the server (none)",
       [](const auto& text, Flags* f) {
         PENSTOCK_RETURN_IF_ERROR(ParseSeconds(text, &f->run.fleet.target.timeout_ms));
         f->run.fleet.target.timeout_ms /= 1'000'000;
         return Status::Ok();
       }},
      {"--metadata", "KEY=VALUE", "sent with each call; may be repeated", &AddMetadata},
  };
  return flags;
}

const std::vector<Flag>& LoadFlags() {
  static const auto& flags = *new std::vector<Flag>{
      {"--concurrency", "N", "closed loop: requests under way at any time (1)",
       [](const auto& text, Flags* f) {
         return ParseNumber<size_t>(text, 1, &f->run.pacer.max_in_flight);
       }},
      {"--rate", "PER_SECOND", "open loop: requests sent per second, whatever the answers do",
       [](const auto& text, Flags* f) { return ParseNumber(text, 1e-3, &f->run.pacer.rate); }},
      {"--arrivals", "KIND", "open loop: poisson or constant (poisson)", &SetArrivals},
      {"--seed", "N", "of the arrivals (1)",
       [](const auto& text, Flags* f) {
         return ParseNumber<uint64_t>(text, 0, &f->run.pacer.seed);
       }},
      {"--requests", "N", "how many requests are measured",
       [](const auto& text, Flags* f) {
         return ParseNumber<uint64_t>(text, 1, &f->run.pacer.requests);
       }},
      {"--duration", "SECONDS", "how long is measured (10, if there is no --requests)",
       [](const auto& text, Flags* f) { return ParseSeconds(text, &f->run.pacer.duration_ns); }},
      {"--warmup", "SECONDS", "of load that is not measured before (0)",
       [](const auto& text, Flags* f) { return ParseSeconds(text, &f->run.pacer.warmup_ns); }},
      {"--patience", "SECONDS", "without any answer, then the run ends early (30)",
       [](const auto& text, Flags* f) { return ParseSeconds(text, &f->run.patience_ns); }},
  };
  return flags;
}

const std::vector<Flag>& BodyFlags() {
  static const auto& flags = *new std::vector<Flag>{
      {"--request", "FILE", "a serialised request; may be repeated: they are sent in turn",
       &AddRequest},
      {"--expect", "FILE", "the serialised answer to the --request before it, to the byte",
       &AddExpected},
      {"--expect-request", "", "answers must be the requests themselves (an echo)",
       [](const auto&, Flags* f) { return SetSwitch(&f->workload.expect_request); }},
      {"--ids", "", "each request gets an id of its own, which its answer must bring back",
       [](const auto&, Flags* f) { return SetSwitch(&f->workload.unique_ids); }},
      {"--json", "FILE", "the report is also written there",
       [](const auto& text, Flags* f) {
         f->json = text;
         return Status::Ok();
       }},
      {"--help", "", "this text", [](const auto&, Flags* f) { return SetSwitch(&f->help); }},
  };
  return flags;
}

const Flag* FindFlag(std::string_view name) {
  for (const auto* flags : {&TargetFlags(), &LoadFlags(), &BodyFlags()}) {
    for (const Flag& flag : *flags) {
      if (flag.name == name) return &flag;
    }
  }
  return nullptr;
}

// What follows from flags that were not given.
Status Complete(Flags* flags) {
  RunOptions& run = flags->run;
  if (run.fleet.target.port == 0) return InvalidArgument("--address is missing");
  if (flags->samples.empty()) return InvalidArgument("--request is missing");
  flags->workload.streaming = run.fleet.streams > 0;
  if (flags->workload.path.empty()) {
    flags->workload.path = flags->workload.streaming ? kStreamPath : kUnaryPath;
  }
  run.fleet.target.path = flags->workload.path;
  PacerOptions& pacer = run.pacer;
  if (pacer.rate > 0 && pacer.max_in_flight > 1) {
    return InvalidArgument("--rate and --concurrency exclude each other");
  }
  if (run.fleet.target.responses > 1 &&
      (pacer.rate > 0 || pacer.max_in_flight > run.fleet.streams)) {
    return InvalidArgument("--responses needs --streams, and a --concurrency of at most as many");
  }
  if (pacer.rate > 0) pacer.max_in_flight = 65'536;
  if (pacer.requests == 0 && pacer.duration_ns == 0) pacer.duration_ns = 10'000'000'000;
  return Status::Ok();
}

}  // namespace

Result<Flags> ParseFlags(const std::vector<std::string>& arguments) {
  Flags flags;
  flags.workload.path.clear();
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string name = arguments[i];
    const Flag* flag = FindFlag(name);
    if (flag == nullptr) return InvalidArgument(StrCat("there is no flag ", name));
    std::string value;
    if (!flag->value.empty()) {
      if (++i == arguments.size()) return InvalidArgument(StrCat(name, " needs a value"));
      value = arguments[i];
    }
    if (const Status status = flag->set(value, &flags); !status.ok()) {
      return InvalidArgument(StrCat(name, ": ", status.message()));
    }
    if (flags.help) return flags;
  }
  PENSTOCK_RETURN_IF_ERROR(Complete(&flags));
  return flags;
}

std::string FlagsHelp() {
  std::string text = "Loads a gRPC server, checks every answer, prints throughput and latency.\n\n";
  for (const auto* flags : {&TargetFlags(), &LoadFlags(), &BodyFlags()}) {
    for (const Flag& flag : *flags) {
      std::string name = StrCat("  ", flag.name, " ", flag.value);
      name.resize(std::max<size_t>(name.size() + 1, 28), ' ');
      text += StrCat(name, flag.help, "\n");
    }
  }
  return text;
}

}  // namespace penstock::load
