// What a device worker and the server tell each other, and how devices are called.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backends/device_worker/device_name.h"
#include "backends/device_worker/load_document.h"

namespace penstock {
namespace {

using testing::HasSubstr;

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

DeviceLoad SomeLoad() {
  DeviceLoad load{"tensorrt", {{"library", "/opt"}}, {}};
  load.options.model_name = "m";
  load.options.version = 3;
  load.options.path = "/models/m/3/model.plan";
  load.options.model_directory = "/models/m";
  load.options.parameters = {{"lanes", "2"}, {"empty", ""}};
  load.options.config_json = "{}";
  return load;
}

DeviceDescription SomeDescription() {
  DeviceDescription description{"TensorRT 11.1", "GPU 0 (H200)", 16, {}};
  description.signature.max_batch_size = 8;
  description.signature.batches_dynamically = true;
  description.signature.inputs = {{"x", DataType::kFp16, {-1, 3}, false}};
  description.signature.outputs = {{"y", DataType::kInt64, {-1}, false},
                                   {"z", DataType::kBool, {}, false}};
  return description;
}

DeviceUse SomeUse() {
  DeviceUse use;
  use.id = 2;
  use.name = "H200";
  use.uuid = "GPU-5a1c";
  use.memory_bytes = 1;
  use.graph_bytes = 2;
  use.graph_budget_bytes = 3;
  use.graphs = {{4, 5, 6}, {7, 8, 9}};
  use.uncaptured_runs = 10;
  use.uncaptured_padded_rows = 11;
  use.busy_ns = 12;
  use.row_changes = 13;
  return use;
}

TEST(DeviceDocumentsTest, Load_IsReadAsItWasWritten) {
  const auto read = DecodeDeviceLoad(Bytes(EncodeDeviceLoad(SomeLoad())));
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(EncodeDeviceLoad(*read), EncodeDeviceLoad(SomeLoad()));
  EXPECT_EQ(read->options.parameters, SomeLoad().options.parameters);
  EXPECT_EQ(read->options.path, SomeLoad().options.path);
}

TEST(DeviceDocumentsTest, DescriptionAndUse_AreReadAsTheyWereWritten) {
  const auto read = DecodeDeviceDescription(Bytes(EncodeDeviceDescription(SomeDescription())));
  ASSERT_TRUE(read.ok());
  EXPECT_TRUE(*read == SomeDescription());
  const std::vector<DeviceUse> uses = {SomeUse(), {}};
  const auto used = DecodeDeviceUses(Bytes(EncodeDeviceUses(uses)));
  ASSERT_TRUE(used.ok());
  ASSERT_EQ(used->size(), 2);
  EXPECT_EQ(EncodeDeviceUses(*used), EncodeDeviceUses(uses));
  EXPECT_EQ(used->at(0).graphs.at(1).padded_rows, 9);
  EXPECT_EQ(used->at(0).busy_ns, 12);
  EXPECT_EQ(used->at(0).row_changes, 13);
}

TEST(DeviceDocumentsTest, CutShortOrLengthened_IsRefused) {
  const std::string load = EncodeDeviceLoad(SomeLoad());
  const std::string description = EncodeDeviceDescription(SomeDescription());
  const std::string uses = EncodeDeviceUses(std::vector<DeviceUse>{SomeUse()});
  for (size_t size = 0; size < load.size(); ++size) {
    EXPECT_FALSE(DecodeDeviceLoad(Bytes(load.substr(0, size))).ok()) << size;
  }
  for (size_t size = 0; size < description.size(); ++size) {
    EXPECT_FALSE(DecodeDeviceDescription(Bytes(description.substr(0, size))).ok()) << size;
  }
  for (size_t size = 0; size < uses.size(); ++size) {
    EXPECT_FALSE(DecodeDeviceUses(Bytes(uses.substr(0, size))).ok()) << size;
  }
  EXPECT_FALSE(DecodeDeviceLoad(Bytes(load + "x")).ok());
  EXPECT_FALSE(DecodeDeviceDescription(Bytes(description + "x")).ok());
  EXPECT_FALSE(DecodeDeviceUses(Bytes(uses + "x")).ok());
}

TEST(DeviceDocumentsTest, CountsAndTextsOfAWorker_AreBounded) {
  const std::string many = "\xff\xff\xff\xff";
  EXPECT_FALSE(DecodeDeviceUses(Bytes(many)).ok());
  EXPECT_FALSE(DecodeDeviceDescription(Bytes(many)).ok());
  DeviceDescription description = SomeDescription();
  description.engine = "\xff";
  EXPECT_FALSE(DecodeDeviceDescription(Bytes(EncodeDeviceDescription(description))).ok());
  description.engine = std::string(kMaxWorkerTextBytes + 1, 'x');
  EXPECT_FALSE(DecodeDeviceDescription(Bytes(EncodeDeviceDescription(description))).ok());
}

struct Named {
  const char* device;
  const char* visible;  // null: not set
  const char* expected;
  std::optional<int64_t> number;
};

class SeenDevices : public testing::TestWithParam<Named> {};

TEST_P(SeenDevices, AreThoseOfTheServer) {
  const auto seen = FindDevice(GetParam().device, GetParam().visible);
  ASSERT_TRUE(seen.ok()) << seen.status().ToString();
  EXPECT_EQ(seen->visible, GetParam().expected);
  EXPECT_EQ(seen->number, GetParam().number);
}

INSTANTIATE_TEST_SUITE_P(
    Names, SeenDevices,
    testing::Values(Named{"0", nullptr, "0", 0}, Named{"3", nullptr, "3", 3},
                    Named{"0", "2,5", "2", 0}, Named{"1", "2, 5", "5", 1},
                    Named{"1", "GPU-a,GPU-b", "GPU-b", 1}, Named{"0", "MIG-5a1c", "MIG-5a1c", 0},
                    Named{"GPU-b", "GPU-a,GPU-b", "GPU-b", 1},
                    Named{"GPU-5a1c-77", "3,GPU-5a1c", "GPU-5a1c", 1},
                    Named{"GPU-5a", "GPU-5a1c", "GPU-5a1c", 0},
                    Named{"GPU-5a", "GPU-5a1c,GPU-5a2d", "GPU-5a", std::nullopt},
                    Named{"GPU-5a1c", nullptr, "GPU-5a1c", std::nullopt},
                    Named{"GPU-5a1c", "2,5", "GPU-5a1c", std::nullopt},
                    Named{"MIG-GPU-5a1c/1/0", nullptr, "MIG-GPU-5a1c/1/0", std::nullopt}));

struct Refused {
  const char* device;
  const char* visible;
  const char* why;
};

class RefusedDevices : public testing::TestWithParam<Refused> {};

TEST_P(RefusedDevices, SayWhy) {
  const auto seen = FindDevice(GetParam().device, GetParam().visible);
  EXPECT_THAT(seen.status().ToString(), HasSubstr(GetParam().why));
}

INSTANTIATE_TEST_SUITE_P(
    Names, RefusedDevices,
    testing::Values(Refused{"", nullptr, "INVALID_ARGUMENT: '' is no device"},
                    Refused{"-1", nullptr, "'-1' is no device"},
                    Refused{"0,1", nullptr, "'0,1' is no device"},
                    Refused{"GPU-", nullptr, "'GPU-' is no device"},
                    Refused{"GPU-a\nB=c", nullptr, "is no device"},
                    Refused{"2", "2,5",
                            "FAILED_PRECONDITION: there is no GPU 2: the server sees 2"},
                    Refused{"1", "2,-1,5", "there is no GPU 1: the server sees 1"},
                    Refused{"0", "", "there is no GPU 0: the server sees 0"},
                    Refused{"GPU-b", "GPU-a", "there is no GPU 'GPU-b'"}));

TEST(DeviceNameTest, Labels) {
  EXPECT_EQ(DeviceLabel("3"), "GPU 3");
  EXPECT_EQ(DeviceLabel("GPU-5a1c"), "GPU-5a1c");
}

}  // namespace
}  // namespace penstock
