// FakeCpus: a sysfs that tells which CPUs are near a device, and this process's threads back on
// theirs when a test that binds them is over.

#pragma once

#include <sched.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "base/strcat.h"

namespace penstock {

// Threading: confined to the thread that made it, whose CPUs all threads get back.
class FakeCpus {
 public:
  FakeCpus() { sched_getaffinity(0, sizeof(before_), &before_); }
  FakeCpus(const FakeCpus&) = delete;
  FakeCpus& operator=(const FakeCpus&) = delete;
  ~FakeCpus() {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      sched_setaffinity(std::stoi(task.path().filename().string()), sizeof(before_), &before_);
    }
    std::filesystem::remove_all(sysfs_);
  }

  const std::string& sysfs() const { return sysfs_; }
  // What the device's local_cpulist holds.
  void Write(const std::string& pci_bus_id, const std::string& cpus) {
    const std::string device = StrCat(sysfs_, "/bus/pci/devices/", pci_bus_id);
    std::filesystem::create_directories(device);
    std::ofstream(device + "/local_cpulist") << cpus << "\n";
  }

  static std::vector<int> OfThisThread() {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof(set), &set);
    std::vector<int> cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(static_cast<size_t>(cpu), &set)) cpus.push_back(cpu);
    }
    return cpus;
  }

 private:
  const std::string sysfs_ =
      StrCat(std::filesystem::temp_directory_path().string(), "/penstock_cpus_", getpid());
  cpu_set_t before_;
};

}  // namespace penstock
