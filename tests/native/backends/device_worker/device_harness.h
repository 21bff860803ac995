// Models of the device fixture in device workers, for tests.

#pragma once

#include <gtest/gtest.h>
#include <signal.h>  // NOLINT(modernize-deprecated-headers): POSIX's, not C++'s

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/device_worker/device_workers.h"
#include "base/mutex.h"
#include "base/strcat.h"

namespace penstock {

inline std::vector<std::string> DeviceDirectories() {
  return {PENSTOCK_FIXTURE_DIRECTORY, PENSTOCK_PLUGIN_DIRECTORY};
}

// A directory that goes with the test.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string name = testing::TempDir() + "/device-XXXXXX";
    path_ = mkdtemp(name.data());
  }
  ~ScratchDirectory() { std::filesystem::remove_all(path_); }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;

  std::string File(const std::string& name) const { return path_ + "/" + name; }
  std::string Write(const std::string& name, const std::string& text) const {
    const std::string file = File(name);
    // At once, for who waits for it.
    std::ofstream(file + ".new") << text;
    std::filesystem::rename(file + ".new", file);
    return file;
  }

 private:
  std::string path_;
};

inline LoadOptions FixtureLoad(const std::string& name,
                               std::map<std::string, std::string> parameters = {},
                               std::vector<std::string> devices = {"0"}) {
  LoadOptions options;
  options.model_name = name;
  options.version = 1;
  options.parameters = std::move(parameters);
  options.devices = std::move(devices);
  return options;
}

inline std::unique_ptr<DeviceModel> MustLoad(DeviceWorkers& workers, const LoadOptions& options) {
  auto model = workers.Load("device_fixture", {}, options);
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  return *std::move(model);
}

// A worker whose options a test may change.
inline DeviceWorkerOptions WorkerOfTests() {
  DeviceWorkerOptions options;
  options.device = "GPU 0";
  options.launch.arguments = {StrCat(PENSTOCK_PLUGIN_DIRECTORY, "/penstock_device_worker"),
                              PENSTOCK_FIXTURE_DIRECTORY};
  options.launch.end_signal = SIGKILL;
  return options;
}

inline std::unique_ptr<DeviceModel> MustLoadIn(
    const std::vector<std::shared_ptr<DeviceWorker>>& workers, const LoadOptions& options,
    double execution_limit_s = 0, double load_limit_s = 0) {
  auto model = DeviceModel::Load(
      StrCat("model '", options.model_name, "' version 1"), workers,
      EncodeDeviceLoad({"device_fixture", {}, options}),
      {static_cast<int64_t>(load_limit_s * 1e9), static_cast<int64_t>(execution_limit_s * 1e9)});
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  return *std::move(model);
}

inline std::unique_ptr<BackendInstance> MustMake(DeviceModel& model) {
  auto instance = model.CreateInstance({"i"});
  EXPECT_TRUE(instance.ok()) << instance.status().ToString();
  return *std::move(instance);
}

// Runs a batch of one row, gathered into the instance's memory as the engine does.
inline Result<std::vector<float>> RunRow(BackendInstance& instance,
                                         const std::vector<float>& values) {
  const size_t size_bytes = values.size() * sizeof(float);
  Buffer gathered = instance.AllocateInput(size_bytes);
  std::memcpy(gathered.data(), values.data(), size_bytes);
  const Shape shape{1, static_cast<int64_t>(values.size())};
  const BatchInput input{0, {"INPUT0", DataType::kFp32, shape, gathered.span()}};
  const size_t wanted[] = {0};
  std::vector<BatchOutput> outputs;
  PENSTOCK_RETURN_IF_ERROR(instance.Execute({&input, 1}, wanted, &outputs));
  const Buffer& data = outputs.at(0).data;
  std::vector<float> got(data.size() / sizeof(float));
  if (!got.empty()) std::memcpy(got.data(), data.data(), data.size());
  return got;
}

// What the worker says of itself: the value of `name` there.
inline std::string AboutWorker(BackendInstance& instance, const std::string& name) {
  const std::string text(RunRow(instance, {-9}).status().message());
  const size_t at = text.find(name + "=");
  if (at == std::string::npos) return "not said: " + text;
  const size_t begin = at + name.size() + 1;
  return text.substr(begin, text.find(' ', begin) - begin);
}

inline pid_t WorkerPid(BackendInstance& instance) {
  return static_cast<pid_t>(std::stol(AboutWorker(instance, "pid")));
}

template <typename Condition>
void AwaitThat(const Condition& condition) {
  Mutex mu;
  CondVar never;
  MutexLock lock(mu);
  while (!condition()) never.WaitFor(mu, 1'000'000);
}

// What is mapped in a process; nothing, or a part, where it ends meanwhile.
inline std::string MapsOf(pid_t pid) {
  std::ifstream file(StrCat("/proc/", pid, "/maps"));
  std::string maps;
  for (std::string line; std::getline(file, line);) maps += line + '\n';
  return maps;
}

// Whether all threads of a process are.
inline bool IsStopped(pid_t pid) {
  for (const auto& thread : std::filesystem::directory_iterator(StrCat("/proc/", pid, "/task"))) {
    std::ifstream file(thread.path() / "stat");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    if (text.find(") T ") == std::string::npos) return false;
  }
  return true;
}

inline void AwaitAvailable(const BackendInstance& instance, bool is_available) {
  AwaitThat([&] { return instance.is_available() == is_available; });
}

}  // namespace penstock
