#include "worker/messages.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace penstock {
namespace {

template <typename T>
void Put(T value, std::vector<uint8_t>* out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
  out->insert(out->end(), bytes, bytes + sizeof(value));
}

// One result with one FP32 output of shape [2], at 64.
std::vector<uint8_t> GoodResults() {
  std::vector<uint8_t> body;
  for (const uint32_t number : {1U, 0U, 0U, 1U, 0U, 12U, 1U}) Put(number, &body);
  Put(uint64_t{64}, &body);
  Put(uint64_t{8}, &body);
  Put(int64_t{2}, &body);
  return body;
}

std::vector<uint8_t> GoodSignature() {
  std::vector<uint8_t> body;
  for (const uint32_t number : {5U, 8U, 1U, 1U}) Put(number, &body);
  for (int i = 0; i < 2; ++i) {
    for (const uint32_t number : {12U, 1U, 2U, 1U}) Put(number, &body);
    Put(int64_t{-1}, &body);
    Put(int64_t{4}, &body);
    body.push_back('a');
  }
  return body;
}

TEST(WorkerMessagesTest, WorkersSide_IsReadAsItWasWritten) {
  const auto bytes = [](const std::string& body) {
    return std::span(reinterpret_cast<const uint8_t*>(body.data()), body.size());
  };
  const auto signature = DecodeSignature(GoodSignature());
  std::string body;
  EncodeSignature(*signature, &body);
  EXPECT_TRUE(*DecodeSignature(bytes(body)) == *signature);
  body.clear();
  EncodeResult({StatusCode::kOk, "", {{0, DataType::kFp32, {2}, 64, 8}}}, &body);
  const auto results = DecodeResults(bytes(body), 72, 1);
  ASSERT_TRUE(results.ok());
  EXPECT_EQ(results->at(0).outputs.at(0).offset, 64);
  const std::vector<WorkerInput> inputs = {{1, DataType::kInt8, {2, 3}, 7, 128, 6}};
  const std::vector<size_t> wanted = {2, 0};
  EncodeRun(inputs, wanted, {}, &body);
  const auto run = DecodeRun(bytes(body));
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(run->wanted, wanted);
  EXPECT_EQ(run->inputs.at(0).shape, inputs[0].shape);
  EXPECT_EQ(run->inputs.at(0).slab, 7);
  for (size_t size = 0; size < body.size(); ++size) {
    EXPECT_FALSE(DecodeRun(bytes(body.substr(0, size))).ok());
  }
  EncodeRun(inputs, wanted, std::vector<WorkerRequest>(1), &body);
  EXPECT_FALSE(DecodeRun(bytes(body)).ok());
}

std::span<const uint8_t> BytesOf(const std::string& body) {
  return {reinterpret_cast<const uint8_t*>(body.data()), body.size()};
}

TEST(WorkerMessagesTest, PartsOfARun_AreReadAsTheyWereWritten) {
  const std::vector<WorkerInput> inputs = {{1, DataType::kInt8, {2, 3}, 7, 128, 6}};
  std::string body;
  EncodeRun(inputs, std::vector<size_t>{2}, {}, &body);
  const size_t without_parts = body.size();
  const std::vector<WorkerInputPart> in = {{0, 7, 0, 64, 3}, {0, 0, 11, 1U << 31, 3}};
  const std::vector<WorkerOutputPart> out = {{0, 1, 2, false, 12, 8, 9}, {0, 3, 4, true, 13, 0, 1}};
  EncodeParts(in, out, &body);
  const auto run = DecodeRun(BytesOf(body));
  ASSERT_TRUE(run.ok());
  EXPECT_EQ(run->inputs.size(), 1);
  ASSERT_EQ(run->input_parts.size(), 2);
  EXPECT_EQ(run->input_parts[0].slab, 7);
  EXPECT_EQ(run->input_parts[1].memory, 11);
  EXPECT_EQ(run->input_parts[1].offset, 1U << 31);
  EXPECT_EQ(run->input_parts[1].size, 3);
  ASSERT_EQ(run->output_parts.size(), 2);
  EXPECT_EQ(run->output_parts[0].first_row, 1);
  EXPECT_EQ(run->output_parts[0].rows, 2);
  EXPECT_FALSE(run->output_parts[0].is_read_on_host);
  EXPECT_EQ(run->output_parts[0].memory, 12);
  EXPECT_EQ(run->output_parts[0].offset, 8);
  EXPECT_EQ(run->output_parts[0].size, 9);
  EXPECT_TRUE(run->output_parts[1].is_read_on_host);
  for (size_t size = 0; size < body.size(); ++size) {
    EXPECT_EQ(DecodeRun(BytesOf(body.substr(0, size))).ok(), size == without_parts) << size;
  }
  EXPECT_FALSE(DecodeRun(BytesOf(body + "x")).ok());
}

TEST(WorkerMessagesTest, Memory_IsReadAsItWasWritten) {
  ExportedMemory::Handle handle{};
  handle[0] = 7;
  handle[63] = 8;
  const std::string body = EncodeMemory(ExportedMemory(handle, 3, uint64_t{1} << 40, nullptr));
  const auto memory = DecodeMemory(BytesOf(body));
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(memory->handle, handle);
  EXPECT_EQ(memory->device, 3);
  EXPECT_EQ(memory->size, uint64_t{1} << 40);
  for (size_t size = 0; size < body.size(); ++size) {
    EXPECT_FALSE(DecodeMemory(BytesOf(body.substr(0, size))).ok()) << size;
  }
}

TEST(WorkerMessagesTest, OutputWithoutItsBytes_IsOneThatNobodyReads) {
  std::string body;
  EncodeResult({StatusCode::kOk, "", {{3, DataType::kFp32, {2}, 64, 0}}}, &body);
  EXPECT_FALSE(DecodeResults(BytesOf(body), 72, 1).ok());
  EXPECT_FALSE(DecodeResults(BytesOf(body), 72, 1, std::vector<size_t>{2}).ok());
  EXPECT_TRUE(DecodeResults(BytesOf(body), 72, 1, std::vector<size_t>{2, 3}).ok());
  body.clear();
  EncodeResult({StatusCode::kOk, "", {{3, DataType::kFp32, {2}, 64, 4}}}, &body);
  EXPECT_FALSE(DecodeResults(BytesOf(body), 72, 1, std::vector<size_t>{3}).ok());
}

TEST(WorkerMessagesTest, Results_AreRead) {
  const auto results = DecodeResults(GoodResults(), 72, 1);
  ASSERT_TRUE(results.ok()) << results.status().ToString();
  const WorkerOutput& output = results->at(0).outputs.at(0);
  EXPECT_EQ(output.dtype, DataType::kFp32);
  EXPECT_EQ(output.shape, Shape{2});
  EXPECT_EQ(output.offset, 64U);
}

TEST(WorkerMessagesTest, OutputBeyondTheSlab_IsRefused) {
  EXPECT_FALSE(DecodeResults(GoodResults(), 71, 1).ok());
}

TEST(WorkerMessagesTest, OutputsThatTakeMoreThanTheSlabTogether_AreRefused) {
  std::vector<uint8_t> body;
  for (const uint32_t number : {1U, 0U, 0U, 2U}) Put(number, &body);
  const std::vector<uint8_t> one = GoodResults();
  for (int i = 0; i < 2; ++i) body.insert(body.end(), one.begin() + 16, one.end());
  EXPECT_TRUE(DecodeResults(body, 72, 1).ok());
  for (int i = 0; i < 8; ++i) body.insert(body.end(), one.begin() + 16, one.end());
  body[12] = 10;
  EXPECT_FALSE(DecodeResults(body, 72, 1).ok());
}

TEST(WorkerMessagesTest, Signature_IsRead) {
  const auto signature = DecodeSignature(GoodSignature());
  ASSERT_TRUE(signature.ok());
  EXPECT_TRUE(signature->is_decoupled && signature->batches_dynamically);
  EXPECT_FALSE(signature->answers_requests);
  EXPECT_EQ(signature->max_batch_size, 8);
  EXPECT_EQ(signature->inputs.at(0).dims, (Shape{-1, 4}));
  EXPECT_TRUE(signature->outputs.at(0).is_optional);
}

TEST(WorkerMessagesTest, EveryPrefix_IsRefused) {
  const auto results = GoodResults();
  for (size_t size = 0; size < results.size(); ++size) {
    EXPECT_FALSE(DecodeResults(std::span(results).first(size), 72, 1).ok()) << size;
  }
  const auto signature = GoodSignature();
  for (size_t size = 0; size < signature.size(); ++size) {
    EXPECT_FALSE(DecodeSignature(std::span(signature).first(size)).ok()) << size;
  }
}

TEST(WorkerMessagesTest, DamagedBodies_AreRefusedOrLieInside) {
  std::mt19937 random(7);  // NOLINT: the same damage each time
  for (int round = 0; round < 20'000; ++round) {
    auto body = GoodResults();
    for (int i = 0; i < 3; ++i) body[random() % body.size()] = static_cast<uint8_t>(random());
    const auto results = DecodeResults(body, 72, 1);
    if (!results.ok()) continue;
    for (const WorkerOutput& output : results->at(0).outputs) {
      ASSERT_LE(output.offset, 72U);
      ASSERT_LE(output.size, 72U - output.offset);
      ASSERT_TRUE(output.shape.NumElements().has_value());
    }
  }
}

TEST(WorkerMessagesTest, NameThatIsNotUtf8_IsRefused) {
  auto body = GoodSignature();
  body.back() = 0xff;
  EXPECT_FALSE(DecodeSignature(body).ok());
}

TEST(WorkerMessagesTest, RunOfOneInput_HasTheLayoutOfTheGrammar) {
  const WorkerInput input{.index = 1,
                          .dtype = DataType::kFp32,
                          .shape = Shape{3, 2},
                          .slab = 9,
                          .offset = 64,
                          .size = 24};
  const size_t wanted[] = {2};
  const Parameter parameters[] = {{"k", std::string_view("v")}, {"b", true}};
  const WorkerRequest request{.rows = 3,
                              .room = 4,
                              .timeout_us = 5,
                              .id = "id",
                              .parameters = parameters,
                              .wanted = wanted};
  std::string body;
  EncodeRun({&input, 1}, wanted, {&request, 1}, &body);
  const size_t input_bytes = 16 + 16 + 16;
  const size_t request_bytes = 4 + 4 + 8 + 12 + 4 + 2 + (8 + 1 + 4 + 1) + (8 + 1 + 8);
  EXPECT_EQ(body.size(), 12 + input_bytes + 4 + request_bytes);
  EXPECT_EQ(body.substr(12 + input_bytes + 4 + 28 + 4, 2), "id");
}

}  // namespace
}  // namespace penstock
