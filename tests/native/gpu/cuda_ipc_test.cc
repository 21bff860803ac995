// Memory that another process exports, on a real GPU: CUDA does not open a process's own handles.
// The exporter is this program, started again with one test chosen.

#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <vector>

#include "gpu/driver_api.h"
#include "gpu/ipc_devices.h"

namespace penstock::gpu {
namespace {

using ::testing::HasSubstr;

constexpr size_t kBytes = 1000;
constexpr int kHandleFd = 1;  // where the exporter writes its handle, and then what it found

// Runs in the child only. It answers "1" where the first bytes are what the parent wrote.
TEST(CudaIpcExporter, DISABLED_Exports) {
  void* data = nullptr;
  cudaIpcMemHandle_t handle;
  std::vector<char> bytes(kBytes, 'e');
  ASSERT_EQ(cudaMalloc(&data, kBytes), cudaSuccess);
  ASSERT_EQ(cudaMemcpy(data, bytes.data(), kBytes, cudaMemcpyHostToDevice), cudaSuccess);
  ASSERT_EQ(cudaIpcGetMemHandle(&handle, data), cudaSuccess);
  const std::string text = "HANDLE" + std::string(handle.reserved, sizeof(handle));
  ASSERT_EQ(write(kHandleFd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  char go;
  ASSERT_EQ(read(0, &go, 1), 1);
  ASSERT_EQ(cudaMemcpy(bytes.data(), data, kBytes, cudaMemcpyDeviceToHost), cudaSuccess);
  const bool is_right = std::string(bytes.data(), 4) == "wxyz" && bytes[4] == 'e';
  ASSERT_EQ(write(kHandleFd, is_right ? "RIGHT" : "WRONG", 5), 5);
}

// A child that exports kBytes bytes of 'e'.
class Exporter {
 public:
  Exporter() {
    int in[2], out[2];
    EXPECT_EQ(pipe2(in, O_CLOEXEC) + pipe2(out, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], kHandleFd);
    std::string program = "/proc/self/exe", disabled = "--gtest_also_run_disabled_tests",
                filter = "--gtest_filter=CudaIpcExporter.*";
    char* const arguments[] = {program.data(), disabled.data(), filter.data(), nullptr};
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    in_ = in[1];
    out_ = out[0];
  }
  ~Exporter() {
    close(in_);
    close(out_);
    waitpid(pid_, nullptr, 0);
  }

  // What it writes behind `mark`; less where it ends before.
  std::string After(const std::string& mark, size_t size_bytes) {
    std::string text;
    char byte;
    while (read(out_, &byte, 1) == 1) {
      text += byte;
      const size_t at = text.find(mark);
      if (at != std::string::npos && text.size() >= at + mark.size() + size_bytes) {
        return text.substr(at + mark.size());
      }
    }
    return "";
  }
  void Go() { EXPECT_EQ(write(in_, "g", 1), 1); }

 private:
  pid_t pid_ = -1;
  int in_ = -1, out_ = -1;
};

TEST(CudaIpcTest, MemoryOfAnotherProcess_IsReadAndWritten) {
  if (!OpenDriverApi().ok()) GTEST_SKIP() << OpenDriverApi().status().ToString();
  Exporter exporter;
  const std::string handle = exporter.After("HANDLE", sizeof(cudaIpcMemHandle_t));
  IpcDevices devices([] { return OpenDriverApi(); });
  auto beyond = devices.Open({.name = "r", .size_bytes = size_t{1} << 40}, handle);
  EXPECT_THAT(beyond.status().ToString(), HasSubstr("reaches beyond the"));
  auto region = devices.Open({.name = "r", .size_bytes = kBytes}, handle);
  ASSERT_TRUE(region.ok()) << region.status().ToString();
  std::vector<uint8_t> bytes(kBytes);
  ASSERT_TRUE((*region)->Read(0, bytes).ok());
  EXPECT_EQ(bytes, std::vector<uint8_t>(kBytes, 'e'));
  const std::vector<uint8_t> written = {'w', 'x', 'y', 'z'};
  ASSERT_TRUE((*region)->Write(0, written).ok());
  exporter.Go();
  EXPECT_EQ(exporter.After("RI", 3), "GHT");
}

TEST(CudaIpcTest, HandleOfNothing_IsRefusedAndTheDeviceGoesOn) {
  if (!OpenDriverApi().ok()) GTEST_SKIP() << OpenDriverApi().status().ToString();
  IpcDevices devices([] { return OpenDriverApi(); });
  for (int i = 0; i < 2; ++i) {
    auto refused = devices.Open({.name = "r", .size_bytes = 8}, std::string(64, 'x'));
    EXPECT_THAT(refused.status().ToString(), HasSubstr("the handle cannot be opened on device 0"));
  }
}

}  // namespace
}  // namespace penstock::gpu
