// Encoded responses, read back with protozero's reader.

#include "protocol/infer_response.h"

#include <gtest/gtest.h>

#include <protozero/pbf_reader.hpp>
#include <string>
#include <vector>

#include "wire_builder.h"

namespace penstock {
namespace {

struct Output {
  std::string name;
  std::string datatype;
  std::vector<int64_t> shape;
};

struct Response {
  std::string model_name;
  std::string model_version;
  std::string id;
  std::vector<std::string> parameters;  // "key=value"
  std::vector<Output> outputs;
  std::vector<std::string> raw;
};

std::string DecodeParameter(protozero::pbf_reader entry) {
  std::string text;
  while (entry.next()) {
    if (entry.tag() == 1) {
      text = entry.get_string() + "=";
    } else {
      protozero::pbf_reader value = entry.get_message();
      text += value.next(1) ? (value.get_bool() ? "true" : "false") : "unset";
    }
  }
  return text;
}

Output DecodeOutput(protozero::pbf_reader message) {
  Output output;
  while (message.next()) {
    if (message.tag() == 1) {
      output.name = message.get_string();
    } else if (message.tag() == 2) {
      output.datatype = message.get_string();
    } else {
      for (const int64_t dim : message.get_packed_int64()) output.shape.push_back(dim);
    }
  }
  return output;
}

Response Decode(protozero::pbf_reader message) {
  Response response;
  while (message.next()) {
    switch (message.tag()) {
      case 1:
        response.model_name = message.get_string();
        break;
      case 2:
        response.model_version = message.get_string();
        break;
      case 3:
        response.id = message.get_string();
        break;
      case 4:
        response.parameters.push_back(DecodeParameter(message.get_message()));
        break;
      case 5:
        response.outputs.push_back(DecodeOutput(message.get_message()));
        break;
      default:
        response.raw.push_back(message.get_string());
    }
  }
  return response;
}

// The bytes of exactly the announced size: the writer itself asserts that it filled them all.
std::string Encode(const InferResponseView& view) {
  std::vector<uint8_t> out(InferResponseSize(view));
  EncodeInferResponse(view, out);
  return AsText(out);
}

TensorView Tensor(std::string_view name, DataType dtype, const Shape& shape,
                  std::string_view data) {
  return {name, dtype, shape, AsBytes(data)};
}

TEST(InferResponse, EveryFieldIsWritten) {
  const std::string data = Raw({1.0F, 2.0F});
  const TensorView outputs[] = {Tensor("scores", DataType::kFp32, {1, 2}, data),
                                Tensor("label", DataType::kBytes, {300}, "abc")};
  const std::string bytes = Encode({"digits", "12", "id-7", outputs, std::nullopt});
  const Response response = Decode(protozero::pbf_reader(bytes));

  EXPECT_EQ(response.model_name, "digits");
  EXPECT_EQ(response.model_version, "12");
  EXPECT_EQ(response.id, "id-7");
  EXPECT_TRUE(response.parameters.empty());
  ASSERT_EQ(response.outputs.size(), 2U);
  EXPECT_EQ(response.outputs[0].name, "scores");
  EXPECT_EQ(response.outputs[0].datatype, "FP32");
  EXPECT_EQ(response.outputs[0].shape, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(response.outputs[1].datatype, "BYTES");
  EXPECT_EQ(response.outputs[1].shape, (std::vector<int64_t>{300}));
  EXPECT_EQ(response.raw, (std::vector<std::string>{data, "abc"}));
}

TEST(InferResponse, EveryDatatypeIsNamed) {
  for (int i = 1; i <= static_cast<int>(DataType::kBytes); ++i) {
    const auto dtype = static_cast<DataType>(i);
    const TensorView outputs[] = {Tensor("o", dtype, {1}, "")};
    const std::string bytes = Encode({"m", "1", "", outputs, std::nullopt});
    const Response response = Decode(protozero::pbf_reader(bytes));
    EXPECT_EQ(ParseDataType(response.outputs.at(0).datatype), dtype);
  }
}

TEST(InferResponse, ZeroSizeAndScalarOutputsHaveTheirRawEntry) {
  const TensorView outputs[] = {Tensor("empty", DataType::kFp32, {0, 4}, ""),
                                Tensor("scalar", DataType::kUint8, {}, "x"),
                                Tensor("empty2", DataType::kFp64, {0}, "")};
  const std::string bytes = Encode({"m", "1", "", outputs, std::nullopt});
  const Response response = Decode(protozero::pbf_reader(bytes));

  EXPECT_EQ(response.outputs[0].shape, (std::vector<int64_t>{0, 4}));
  EXPECT_TRUE(response.outputs[1].shape.empty());
  EXPECT_EQ(response.raw, (std::vector<std::string>{"", "x", ""}));
}

TEST(InferResponse, EmptyIdIsNotOnTheWire) {
  EXPECT_EQ(Encode({"m", "1", "", {}, std::nullopt}),
            Message().String(1, "m").String(2, "1").data());
}

TEST(InferResponse, FinalResponseIsWrittenTrueAndFalse) {
  for (const bool value : {true, false}) {
    const std::string bytes = Encode({"m", "1", "", {}, value});
    const Response response = Decode(protozero::pbf_reader(bytes));
    ASSERT_EQ(response.parameters.size(), 1U);
    EXPECT_EQ(response.parameters[0],
              std::string("triton_final_response=") + (value ? "true" : "false"));
  }
}

TEST(InferResponse, DigestIsAStringParameterBehindTheOthers) {
  const std::string digest = "sha256:" + std::string(64, 'd');
  InferResponseView view{"m", "1", "", {}, std::nullopt};
  view.digest = digest;
  const std::string value = Message().String(3, digest).data();
  const std::string entry = Message().String(1, "penstock_digest").String(2, value).data();
  EXPECT_EQ(Encode(view), Message().String(1, "m").String(2, "1").String(4, entry).data());
  view.final_response = true;
  EXPECT_TRUE(Encode(view).ends_with(Message().String(4, entry).data()));
}

TEST(InferResponse, SizesAroundTheStepsOfALengthAreExact) {
  for (const size_t size : {0U, 1U, 127U, 128U, 16383U, 16384U, 2097151U, 2097152U}) {
    const std::string data(size, 'd');
    const std::string name(size % 20000, 'n');
    const TensorView outputs[] = {
        Tensor(name, DataType::kUint8, {static_cast<int64_t>(size)}, data)};
    const std::string bytes = Encode({"m", "1", "", outputs, std::nullopt});
    const Response response = Decode(protozero::pbf_reader(bytes));
    EXPECT_EQ(response.outputs[0].name, name);
    EXPECT_EQ(response.outputs[0].shape[0], static_cast<int64_t>(size));
    EXPECT_TRUE(response.raw[0] == data) << size;
  }
}

TEST(StreamInferResponse, ResponseIsWrappedWithoutAnError) {
  const TensorView outputs[] = {Tensor("o", DataType::kUint8, {1}, "x")};
  const InferResponseView view{"m", "1", "7", outputs, true};
  std::vector<uint8_t> out(StreamInferResponseSize(view));
  EncodeStreamInferResponse(view, out);

  EXPECT_EQ(AsText(out), Message().String(2, Encode(view)).data());
}

TEST(StreamInferResponse, ErrorCarriesIdModelAndFlagButNoOutputs) {
  const TensorView outputs[] = {Tensor("o", DataType::kUint8, {1}, "x")};
  const InferResponseView view{"m", "1", "7", outputs, true};
  std::vector<uint8_t> out(StreamInferErrorSize("it failed", view));
  EncodeStreamInferError("it failed", view, out);
  const std::string bytes = AsText(out);

  protozero::pbf_reader message(bytes);
  ASSERT_TRUE(message.next(1));
  EXPECT_EQ(message.get_string(), "it failed");
  ASSERT_TRUE(message.next(2));
  const Response response = Decode(message.get_message());
  EXPECT_EQ(response.id, "7");
  EXPECT_EQ(response.model_name, "m");
  EXPECT_EQ(response.parameters, (std::vector<std::string>{"triton_final_response=true"}));
  EXPECT_TRUE(response.outputs.empty());
  EXPECT_TRUE(response.raw.empty());
  EXPECT_FALSE(message.next());
}

}  // namespace
}  // namespace penstock
