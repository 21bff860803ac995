// The adapter's own code, compiled with TensorRT's headers, on a library that is made for it; and on
// TensorRT's lean runtime where CUDA does not start, PENSTOCK_TEST_LEAN, if it is given.

#include "backends/tensorrt/nvinfer_runtime.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <string_view>

#include "backends/tensorrt/plan_layout.h"
#include "testing/quiet_log.h"

namespace penstock::tensorrt {
namespace {

using testing::AllOf;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

class NvinferRuntimeTest : public testing::Test {
 protected:
  ~NvinferRuntimeTest() override { unsetenv("FAKE_NVINFER"); }

  static Result<std::unique_ptr<PlanRuntime>> Open() {
    return OpenNvinfer(PENSTOCK_FAKE_LIBRARY, "the one configured");
  }
  static Result<std::unique_ptr<Plan>> Read(PlanRuntime& runtime, std::string_view text) {
    return runtime.Read({reinterpret_cast<const uint8_t*>(text.data()), text.size()}, false);
  }
  static Status LayoutOf(std::string_view text) {
    const auto runtime = *Open();
    const auto plan = *Read(*runtime, text);
    return PlanLayout::Create("it", plan->tensors(), plan->profiles(), true).status();
  }

  const QuietLog quiet_;
};

TEST_F(NvinferRuntimeTest, RuntimeWithoutCuda_IsNotTouched_AndSaysTheCause) {
  setenv("FAKE_NVINFER", "no cuda", 1);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Open().status().ToString(),
              "FAILED_PRECONDITION: its runtime does not start: CUDA initialization failure with "
              "error: 46 In check");
  }
  unsetenv("FAKE_NVINFER");
  EXPECT_TRUE(Open().ok());
}

TEST_F(NvinferRuntimeTest, LeanRuntimeWithoutCuda_SaysTheCause) {
  const char* library = std::getenv("PENSTOCK_TEST_LEAN");
  if (library == nullptr) GTEST_SKIP() << "PENSTOCK_TEST_LEAN names no library";
  const Status status = OpenNvinfer(library, "the one configured").status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("its runtime does not start: "),
                    HasSubstr("CUDA initialization failure with error: 35 "),
                    Not(HasSubstr("catchCudaError"))));
}

TEST_F(NvinferRuntimeTest, PlugIns_AreRegisteredOnce) {
  ASSERT_TRUE(Open().ok());
  ASSERT_TRUE(Open().ok());
  void* plugins = dlopen(PENSTOCK_FAKE_PLUGINS, RTLD_NOW | RTLD_NOLOAD);
  ASSERT_NE(plugins, nullptr);
  EXPECT_EQ(*static_cast<int*>(dlsym(plugins, "starts")), 1);
  dlclose(plugins);
}

TEST_F(NvinferRuntimeTest, PlanThatIsNone_IsRefusedWithTheFirstWordsOfItsRead) {
  const auto runtime = *Open();
  const std::string refused = std::string(runtime->description()) + " does not take the plan: ";
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Read(*runtime, "something else").status().message(), refused + "the cause");
  }
}

TEST_F(NvinferRuntimeTest, PlanOfAnotherVersion_IsRefusedWithTheLibrarysVersionAndPlace) {
  const auto runtime = *Open();
  const std::string version(runtime->description().substr(std::string_view("TensorRT ").size()));
  const Status refused = Read(*runtime, "version").status();
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr("Version tag does not match."),
                                                    EndsWith("than the one that is to run it, " +
                                                             version + ", the one configured")));
}

TEST_F(NvinferRuntimeTest, LayoutOfEveryProfile_IsLookedAt) {
  EXPECT_TRUE(LayoutOf("plan").ok());
  EXPECT_THAT(LayoutOf("plan vectorised").ToString(),
              HasSubstr("output 'y' has a layout of TensorRT's own"));
}

TEST_F(NvinferRuntimeTest, OutputInAnInputsMemory_IsRefused) {
  EXPECT_THAT(LayoutOf("plan aliased").ToString(),
              HasSubstr("output 'y' has to lie in the memory of input 'x'"));
}

}  // namespace
}  // namespace penstock::tensorrt
