#include "load/workload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "load/message.h"

namespace penstock::load {
namespace {

using testing::HasSubstr;

std::string Field(int number, const std::string& text) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(text.size())} + text;
}

Outcome Judge(const Workload& workload, const std::string& id, const std::string& message,
              std::string* text) {
  const Answer answer = workload.Judge(0, id, message, text);
  EXPECT_EQ(answer.text, *text);
  return answer.outcome;
}

TEST(MessageCutter, CutsMessagesHoweverTheyCome) {
  const std::string bytes = std::string("\0\0\0\0\3abc\0\0\0\0\0\0\0\0\0\1z", 19);
  for (size_t step = 1; step <= bytes.size(); ++step) {
    MessageCutter cutter;
    std::vector<std::string> messages;
    for (size_t at = 0; at < bytes.size(); at += step) {
      const std::string part = bytes.substr(at, step);
      cutter.Append(reinterpret_cast<const uint8_t*>(part.data()), part.size());
      while (const auto message = cutter.Next()) messages.emplace_back(*message);
    }
    EXPECT_THAT(messages, testing::ElementsAre("abc", "", "z")) << step;
    EXPECT_TRUE(cutter.is_empty());
    EXPECT_EQ(cutter.fault(), nullptr);
  }
}

TEST(MessageCutter, RefusesACompressedMessage) {
  MessageCutter cutter;
  const std::array<uint8_t, 6> bytes = {1, 0, 0, 0, 1, 'x'};
  cutter.Append(bytes.data(), bytes.size());
  EXPECT_FALSE(cutter.Next());
  EXPECT_THAT(cutter.fault(), HasSubstr("compressed"));
}

TEST(MessageCutter, ALengthIsNotBelievedBeforeItsBytesCome) {
  MessageCutter cutter;
  const std::array<uint8_t, 5> prefix = {0, 0xFF, 0xFF, 0xFF, 0xFF};
  cutter.Append(prefix.data(), prefix.size());  // 4 GiB foretold: nothing is reserved for them
  EXPECT_FALSE(cutter.Next());
  EXPECT_EQ(cutter.fault(), nullptr);
}

TEST(FindField, FindsTheLastAndSaysWhereItLies) {
  const std::string message = Field(3, "a") + Field(1, "model") + Field(3, "bc");
  const auto field = FindField(message, 3);
  ASSERT_TRUE(field);
  EXPECT_EQ(field->payload, "bc");
  EXPECT_EQ(field->begin, 10u);
  EXPECT_EQ(field->end, 14u);
  EXPECT_FALSE(FindField(message, 2));
  EXPECT_FALSE(FindField("\xff\xff", 3));
}

TEST(IdField, IsReadBackWhateverItsLength) {
  for (const size_t size : {0, 1, 127, 128, 20'000}) {
    const std::string id(size, 'i');
    const std::string message = Field(1, "m") + IdField(id);
    EXPECT_EQ(FindField(message, kIdField)->payload, id);
  }
}

TEST(Workload, RefusesNothingToSend) {
  EXPECT_EQ(Workload::Create({}, {}).status().code(), StatusCode::kInvalidArgument);
}

TEST(Workload, RefusesToGiveAnIdToWhatIsNoInferenceRequest) {
  const auto workload = Workload::Create({{"\xff\xff", {}}}, {.unique_ids = true});
  EXPECT_THAT(std::string(workload.status().message()), HasSubstr("not a ModelInferRequest"));
}

TEST(Workload, ExpectedAnswerMustComeToTheByte) {
  const auto workload = Workload::Create({{"question", "answer"}}, {});
  std::string text;
  EXPECT_EQ(Judge(*workload, "", "answer", &text), Outcome::kOk);
  EXPECT_EQ(Judge(*workload, "", "answEr", &text), Outcome::kWrongAnswer);
  EXPECT_THAT(text, HasSubstr("at byte 4"));
  EXPECT_EQ(Judge(*workload, "", "answer!", &text), Outcome::kWrongAnswer);
  EXPECT_EQ(Judge(*workload, "", "", &text), Outcome::kWrongAnswer);
}

TEST(Workload, AnIdOfTheRequestMustComeBack) {
  const auto workload = Workload::Create({{Field(1, "m") + Field(3, "mine"), {}}}, {});
  std::string text;
  EXPECT_EQ(Judge(*workload, "", Field(1, "m") + Field(3, "mine"), &text), Outcome::kOk);
  EXPECT_EQ(Judge(*workload, "", Field(1, "m") + Field(3, "yours"), &text), Outcome::kWrongAnswer);
  EXPECT_EQ(text, R"(the answer's id is "yours", expected "mine")");
  EXPECT_EQ(Judge(*workload, "", Field(1, "m"), &text), Outcome::kWrongAnswer);
}

TEST(Workload, UniqueIdsAreComparedApartFromTheRest) {
  const auto workload = Workload::Create({{Field(1, "m") + Field(3, "of the file"),
                                           Field(1, "m") + Field(3, "old") + Field(6, "data")}},
                                         {.unique_ids = true});
  std::string text;
  EXPECT_EQ(workload->request(0), Field(1, "m"));
  EXPECT_EQ(Judge(*workload, "7", Field(1, "m") + Field(3, "7") + Field(6, "data"), &text),
            Outcome::kOk);
  EXPECT_EQ(Judge(*workload, "7", Field(1, "m") + Field(3, "8") + Field(6, "data"), &text),
            Outcome::kWrongAnswer);
  EXPECT_EQ(Judge(*workload, "7", Field(1, "m") + Field(3, "7") + Field(6, "dada"), &text),
            Outcome::kWrongAnswer);
  EXPECT_THAT(text, HasSubstr("differs"));
  EXPECT_EQ(Judge(*workload, "7", Field(1, "m") + Field(6, "data"), &text), Outcome::kWrongAnswer);
}

TEST(Workload, StreamResponsesAreUnwrapped) {
  const auto workload = Workload::Create(
      {{"q", Field(1, "m")}},
      {.path = "/inference.GRPCInferenceService/ModelStreamInfer", .streaming = true});
  std::string text;
  EXPECT_EQ(Judge(*workload, "", Field(2, Field(1, "m")), &text), Outcome::kOk);
  EXPECT_EQ(Judge(*workload, "", Field(2, Field(1, "n")), &text), Outcome::kWrongAnswer);
  EXPECT_EQ(Judge(*workload, "", Field(1, "no model m") + Field(2, Field(1, "m")), &text),
            Outcome::kRequestFailed);
  EXPECT_EQ(text, "no model m");
}

TEST(Workload, CheckJudgesWhatIsOtherwiseRight) {
  WorkloadOptions options;
  options.check = [](size_t sample, std::string_view answer) {
    return answer == "bad" ? "sample " + std::to_string(sample) + " is bad" : std::string();
  };
  const auto workload = Workload::Create({{"q", {}}}, options);
  std::string text;
  EXPECT_EQ(Judge(*workload, "", "good", &text), Outcome::kOk);
  EXPECT_EQ(Judge(*workload, "", "bad", &text), Outcome::kWrongAnswer);
  EXPECT_EQ(text, "sample 0 is bad");
}

}  // namespace
}  // namespace penstock::load
