#include "gpu/near_cpus.h"

#include <sched.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "base/log.h"
#include "base/strcat.h"

namespace penstock::gpu {
namespace {

// A number at the front of `text`, which is taken from it.
std::optional<int> TakeNumber(std::string_view& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || number < 0) return std::nullopt;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return number;
}

bool TakeSign(std::string_view& text, char sign) {
  if (text.empty() || text.front() != sign) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<cpu_set_t> CpusNear(std::string pci_bus_id, const std::string& sysfs) {
  // CUDA writes capital letters, Linux small ones.
  std::transform(pci_bus_id.begin(), pci_bus_id.end(), pci_bus_id.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::ifstream file(StrCat(sysfs, "/bus/pci/devices/", pci_bus_id, "/local_cpulist"));
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  const auto cpus = ParseCpuList(line);
  if (!cpus) return std::nullopt;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : *cpus) {
    if (cpu < CPU_SETSIZE) CPU_SET(static_cast<size_t>(cpu), &set);
  }
  return set;
}

bool BindThread(pid_t thread, const cpu_set_t& near) {
  cpu_set_t allowed;
  if (sched_getaffinity(thread, sizeof(allowed), &allowed) != 0) return false;  // it has ended
  cpu_set_t both;
  CPU_AND(&both, &allowed, &near);
  if (CPU_COUNT(&both) == 0 || CPU_EQUAL(&both, &allowed)) return false;
  return sched_setaffinity(thread, sizeof(both), &both) == 0;
}

// The number of threads that were not bound before.
size_t BindAll(const cpu_set_t& near) {
  size_t bound = 0;
  std::error_code error;
  std::filesystem::directory_iterator task("/proc/self/task", error);
  for (; !error && task != std::filesystem::directory_iterator(); task.increment(error)) {
    const std::string name = task->path().filename().string();
    std::string_view digits = name;
    const auto thread = TakeNumber(digits);
    if (thread && BindThread(*thread, near)) ++bound;
  }
  return bound;
}

}  // namespace

std::optional<std::vector<int>> ParseCpuList(std::string_view text) {
  std::vector<int> cpus;
  do {
    const auto first = TakeNumber(text);
    const auto last = TakeSign(text, '-') ? TakeNumber(text) : first;
    // A range without end would be no machine's.
    if (!first || !last || *last < *first || *last - *first > 65'535) return std::nullopt;
    for (int cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
  } while (TakeSign(text, ','));
  if (!text.empty()) return std::nullopt;
  return cpus;
}

bool BindThreadsNear(const std::string& pci_bus_id, const std::string& sysfs) {
  const auto near = CpusNear(pci_bus_id, sysfs);
  if (!near) return false;
  size_t bound = 0;
  // Again while there are new ones: a thread that was not bound yet may have started another meanwhile.
  while (const size_t more = BindAll(*near)) bound += more;
  if (bound == 0) return false;
  Log(LogLevel::kInfo, "gpu",
      StrCat(bound, " threads stay on the CPUs near the GPU at ", pci_bus_id,
             ", of which there are ", CPU_COUNT(&*near)));
  return true;
}

}  // namespace penstock::gpu
