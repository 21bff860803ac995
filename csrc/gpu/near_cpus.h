// The CPUs that are near a device: of its NUMA node, where a copy does not cross the machine.

#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace penstock::gpu {

// "0-3,8" as Linux lists CPUs; nullopt where it is no such list.
std::optional<std::vector<int>> ParseCpuList(std::string_view text);

// Leaves each thread of this process those of its CPUs that are near the device, and so the threads
// that these start, and the memory that they touch first. A thread that has none there (it was put
// elsewhere) stays where it is, as all do where `sysfs` does not tell. False: no thread was bound.
bool BindThreadsNear(const std::string& pci_bus_id, const std::string& sysfs);

}  // namespace penstock::gpu
