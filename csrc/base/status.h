// Status and Result: how the core reports expected failure.
//
// A Status is a gRPC canonical code plus one sentence: what failed, which model, version and
// tensor, what was expected and what came. OK carries no allocation. The core throws nothing for
// expected failure; `bindings/errors.cc` is the only place where a Status becomes an exception.

#pragma once

#include <cassert>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace penstock {

// The gRPC canonical codes, with their wire numbers.
enum class StatusCode : int {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

// "INVALID_ARGUMENT" for kInvalidArgument, and so on.
std::string_view StatusCodeName(StatusCode code);

// Threading: thread-compatible; copies share one immutable message.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message);

  static Status Ok() { return Status(); }

  bool ok() const { return rep_ == nullptr; }
  StatusCode code() const { return rep_ ? rep_->code : StatusCode::kOk; }
  std::string_view message() const { return rep_ ? std::string_view(rep_->message) : ""; }
  // "INVALID_ARGUMENT: the message"
  std::string ToString() const;

  // How long the caller had better wait before it tries again; negative = nothing is known of that.
  int64_t retry_after_ms() const { return rep_ ? rep_->retry_after_ms : -1; }
  // The same failure with that. REQUIRES: !ok().
  Status WithRetryAfter(int64_t retry_after_ms) const;

 private:
  struct Rep {
    StatusCode code;
    std::string message;
    int64_t retry_after_ms = -1;
  };
  std::shared_ptr<const Rep> rep_;  // shared: one failed batch gives every request the same text
};

Status InvalidArgument(std::string message);
Status NotFound(std::string message);
Status AlreadyExists(std::string message);
Status Unavailable(std::string message);
Status Internal(std::string message);
Status Unimplemented(std::string message);
Status ResourceExhausted(std::string message);
Status FailedPrecondition(std::string message);
Status Cancelled(std::string message);
Status DeadlineExceeded(std::string message);
Status PermissionDenied(std::string message);
Status Unauthenticated(std::string message);

// A value or the Status that says why there is none.
// Lifecycle: value() and operator* only after ok() was seen true (asserted).
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value)
      : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  Result(Status status) : state_(std::in_place_index<1>, std::move(status)) {  // NOLINT: likewise
    assert(!std::get<1>(state_).ok());
  }

  bool ok() const { return state_.index() == 0; }
  Status status() const { return ok() ? Status() : std::get<1>(state_); }

  T& value() & {
    assert(ok());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    assert(ok());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    assert(ok());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> state_;
};

}  // namespace penstock

// Leaves the enclosing function with the Status when it is not OK.
#define PENSTOCK_RETURN_IF_ERROR(expr)                        \
  do {                                                        \
    if (::penstock::Status status_ = (expr); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

#define PENSTOCK_CONCAT_INNER(a, b) a##b
#define PENSTOCK_CONCAT(a, b) PENSTOCK_CONCAT_INNER(a, b)

// PENSTOCK_ASSIGN_OR_RETURN(auto x, F()): x = value of F(), or leaves with F()'s Status.
#define PENSTOCK_ASSIGN_OR_RETURN(lhs, expr) \
  PENSTOCK_ASSIGN_OR_RETURN_IMPL(PENSTOCK_CONCAT(result_, __LINE__), lhs, expr)
#define PENSTOCK_ASSIGN_OR_RETURN_IMPL(result, lhs, expr)        \
  auto result = (expr); /* NOLINT(bugprone-macro-parentheses) */ \
  if (!(result).ok()) return (result).status();                  \
  lhs = *std::move(result) /* NOLINT(bugprone-macro-parentheses): may declare */
