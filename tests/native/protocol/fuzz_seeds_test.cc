// Every seed of the fuzz target, run once: what a fuzzer found stays found, in every build.

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace penstock {
namespace {

TEST(FuzzSeeds, EverySeedIsHandled) {
  size_t num_seeds = 0;
  for (const auto& entry : std::filesystem::directory_iterator(PENSTOCK_FUZZ_SEEDS)) {
    SCOPED_TRACE(entry.path().filename().string());
    std::ifstream file(entry.path(), std::ios::binary);
    const std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
    const std::vector<uint8_t> bytes(text.begin(), text.end());
    EXPECT_EQ(LLVMFuzzerTestOneInput(bytes.data(), bytes.size()), 0);
    ++num_seeds;
  }
  EXPECT_GE(num_seeds, 8U);
}

}  // namespace
}  // namespace penstock
