#include "backends/tensorrt/probe.h"

#include <dlfcn.h>

#include <filesystem>
#include <optional>

#include "base/strcat.h"

namespace penstock::tensorrt {
namespace {

constexpr const char* kDriver = "libcuda.so.1";
constexpr int kNoDevice = 100;  // CUDA_ERROR_NO_DEVICE

class Reporter {
 public:
  explicit Reporter(std::FILE* out) : out_(out) {}

  // At once: the next call may be the last. On a line of its own, whatever a vendor wrote before.
  void Say(const std::string& word, const std::string& text) {
    std::fputs(StrCat("\n", kProbeLine, word, text, "\n").c_str(), out_);
    std::fflush(out_);
  }

 private:
  std::FILE* out_;
};

template <typename Function>
Function Find(void* library, const char* name) {
  return reinterpret_cast<Function>(dlsym(library, name));
}

// Why there is no device to run on; "" where there is one.
std::string AskDriver(Reporter& reporter) {
  reporter.Say(kStepWord, StrCat("opening the CUDA driver, ", kDriver));
  void* library = dlopen(kDriver, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return StrCat("there is no CUDA driver on this machine (", kDriver, " cannot be opened)");
  }
  auto* init = Find<int (*)(unsigned)>(library, "cuInit");
  auto* ask_version = Find<int (*)(int*)>(library, "cuDriverGetVersion");
  auto* count_devices = Find<int (*)(int*)>(library, "cuDeviceGetCount");
  if (init == nullptr || ask_version == nullptr || count_devices == nullptr) {
    return StrCat("the CUDA driver's ", kDriver, " lacks what every driver has");
  }
  reporter.Say(kStepWord, "starting the CUDA driver");
  const int error = init(0);
  if (error == kNoDevice) return "the CUDA driver finds no device";
  if (error != 0) return StrCat("the CUDA driver does not start: its error ", error);
  int version = 0;
  if (const int failed = ask_version(&version); failed != 0 || version <= 0) {
    return StrCat("the CUDA driver has no version: its error ", failed);
  }
  int devices = 0;
  if (const int failed = count_devices(&devices); failed != 0) {
    return StrCat("the CUDA driver does not count its devices: its error ", failed);
  }
  return devices > 0 ? "" : "the CUDA driver finds no device";
}

std::optional<Version> AskVersion(void* library) {
  Version version;
  struct Part {
    const char* name;
    int* value;
  };
  for (const Part& part : {Part{"getInferLibMajorVersion", &version.major},
                           Part{"getInferLibMinorVersion", &version.minor},
                           Part{"getInferLibPatchVersion", &version.patch},
                           Part{"getInferLibBuildVersion", &version.build}}) {
    auto* ask = Find<int (*)()>(library, part.name);
    if (ask == nullptr) return std::nullopt;
    *part.value = ask();
  }
  return version;
}

std::string FileName(const std::string& candidate) {
  return std::filesystem::path(candidate).filename().string();
}

// Why the candidate is not taken, and whether it is there at all.
struct Refusal {
  std::string why;
  bool was_opened = false;
};

std::optional<Refusal> TryLibrary(const std::string& candidate, Reporter& reporter,
                                  std::span<const HeaderVersion> accepted, Version* version) {
  reporter.Say(kStepWord, StrCat("opening TensorRT's ", FileName(candidate)));
  void* library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    // NOLINTNEXTLINE(concurrency-mt-unsafe): no other thread. It holds paths: for the log alone.
    std::fprintf(stderr, "%s\n", dlerror());
    return Refusal{};
  }
  reporter.Say(kStepWord, StrCat("asking TensorRT's ", FileName(candidate), " for its version"));
  const std::optional<Version> found = AskVersion(library);
  if (!found) {
    return Refusal{StrCat(FileName(candidate), " is no TensorRT of version 10 or later"), true};
  }
  *version = *found;
  const std::string why = WhyRefused(*found, accepted);
  if (why.empty()) return std::nullopt;
  return Refusal{why, true};
}

}  // namespace

void RunProbe(std::span<const HeaderVersion> accepted, const std::vector<std::string>& candidates,
              std::FILE* out) {
  Reporter reporter(out);
  if (const std::string why = AskDriver(reporter); !why.empty()) {
    return reporter.Say(kAwayWord, why);
  }
  // Of several, that which came furthest is what the reader can do most about.
  std::string refused = "TensorRT's runtime cannot be opened; the server's log says what was tried";
  bool was_opened = false;
  for (const std::string& candidate : candidates) {
    Version version;
    const std::optional<Refusal> refusal = TryLibrary(candidate, reporter, accepted, &version);
    if (!refusal) {
      return reporter.Say(kFoundWord, StrCat(version.major, " ", version.minor, " ", version.patch,
                                             " ", version.build, " ", candidate));
    }
    if (refusal->was_opened && !was_opened) refused = refusal->why;
    was_opened = was_opened || refusal->was_opened;
  }
  reporter.Say(kRefusedWord, refused);
}

}  // namespace penstock::tensorrt
