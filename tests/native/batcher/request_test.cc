#include "batcher/request.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

namespace penstock {
namespace {

using State = Request::State;

TEST(RequestStateTest, OnlyTheMovesOfTheTableAreLegal) {
  const std::set<std::pair<State, State>> legal = {
      {State::kNew, State::kQueued},     {State::kNew, State::kDone},
      {State::kQueued, State::kRunning}, {State::kQueued, State::kDone},
      {State::kQueued, State::kNew},     {State::kRunning, State::kDone}};
  for (const State from : {State::kNew, State::kQueued, State::kRunning, State::kDone}) {
    for (const State to : {State::kNew, State::kQueued, State::kRunning, State::kDone}) {
      EXPECT_EQ(Request::CanMove(from, to), legal.contains({from, to}))
          << static_cast<int>(from) << " -> " << static_cast<int>(to);
    }
  }
}

class CountedRequest final : public Request {
 public:
  explicit CountedRequest(int* disposed) : disposed_(disposed) {}

 private:
  void OnDone(const Status&) noexcept override {}
  void Wake() noexcept override {}
  void Dispose() noexcept override {
    ++*disposed_;
    delete this;
  }
  int* const disposed_;
};

TEST(RequestRefTest, LastReference_Disposes) {
  int disposed = 0;
  RequestRef first(new CountedRequest(&disposed));
  RequestRef second = first;
  RequestRef third = std::move(second);
  EXPECT_FALSE(second);  // NOLINT: a moved-from reference is empty
  first = RequestRef();
  EXPECT_EQ(disposed, 0);
  first = third;
  const RequestRef& same = first;
  first = same;
  EXPECT_EQ(disposed, 0);
  {
    RequestRef last = std::move(first);
    third = RequestRef();
    EXPECT_EQ(disposed, 0);
  }
  EXPECT_EQ(disposed, 1);
}

}  // namespace
}  // namespace penstock
