// AccessControl: who may call what, and how often.

#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "base/status.h"
#include "engine/call_group.h"
#include "engine/rate_limiter.h"
#include "engine/token_table.h"

namespace penstock {

// What a caller must send to call a restricted group.
struct RestrictedGroup {
  std::string header;  // in lower case
  std::string value;
};

// What is asked of callers. A policy that asks nothing costs a call one comparison.
struct AccessPolicy {
  std::array<std::optional<RestrictedGroup>, kCallGroupNames.size()> restricted;
  bool needs_identity = false;  // a key or a token, except in:
  CallGroups open_groups;
  bool has_tokens = false;  // credentials that are no key may be tokens, which others verify
  RateLimit connection_rate;
  size_t max_callers = 65536;  // whose rates are kept
  size_t max_tokens = 65536;   // that are known to be good
  size_t max_refused = 4096;   // that are known to be bad

  bool is_active() const;
};

// Who makes a call, as its headers say: read once for each call, also for a long stream.
// Threading: constant, so any.
struct Caller {
  CallGroups opened;  // restricted groups whose header was sent
  bool has_credential = false;
  Sha256Digest digest{};   // of the credential
  std::string credential;  // where the policy has tokens; for whom verifies them
  std::string fault;       // why the credential cannot be read
  std::string connection;  // what tells it from others: the same for all calls of a connection
  bool is_server = false;  // the server itself, for work that it let in before; never of headers
};

using CallHeader = std::pair<std::string_view, std::string_view>;

// Why a call did not come in.
enum class Refusal : uint8_t {
  kBusy,
  kDraining,
  kSize,
  kRestricted,
  kUnauthenticated,
  kPermissionDenied,
  kUnverified,
  kConnectionRate,
  kKeyRate,
};
inline constexpr std::array<std::string_view, 9> kRefusalNames = {
    "busy",       "draining",        "size",
    "restricted", "unauthenticated", "permission_denied",
    "unverified", "connection_rate", "key_rate"};

// What one connection's bad tokens may cost: verifications, at 0.1 to 0.3 ms of CPU each.
inline constexpr RateLimit kBadTokens = {.per_second = 50, .burst = 100};

struct Refused {
  Refusal reason;
  Status status;
};

// RESOURCE_EXHAUSTED where a request of `message_bytes`, and `shared_bytes` of inputs that it left in
// shared memory, is larger than its owner's may be. Null: nobody in particular.
Status CheckOwnSize(const Principal* who, size_t message_bytes, uint64_t shared_bytes);

// Threading: thread-safe.
// Ownership: borrows the clock.
class AccessControl {
 public:
  AccessControl(AccessPolicy policy, Clock& clock);

  bool is_active() const { return is_active_; }

  // Reads the headers of a call (names in lower case). `connection` tells connections apart.
  Caller Identify(std::span<const CallHeader> headers, std::string_view connection) const;

  // Whether the caller's token must be verified before it can call the group. Whoever does so tells
  // the outcome by Remember; nobody who does not ask lets anyone in.
  bool NeedsVerification(const Caller& caller, CallGroup group) const;
  // A verdict against the caller counts against its connection.
  void Remember(const Caller& caller, Verdict verdict, int64_t until_ns);
  // Why the caller's token is not to be verified now: its connection brings bad tokens, each of
  // which costs a verification. Asked once for each verification. Never of a connection that is just
  // "unix:", or has no name: many may share that.
  std::optional<Refused> RefuseVerification(const Caller& caller) const;

  // From now on these keys and no others, also for calls that are under way.
  void SetKeys(DigestMap<PrincipalRef> keys);
  // Every token is to be verified anew: what they are verified with has changed.
  void ForgetTokens();

  // Whether the caller may call the group at all; `who`, where it had to be somebody. A null caller
  // is one that sent nothing.
  std::optional<Refused> Authorize(const Caller* caller, CallGroup group, PrincipalRef* who) const;
  // Take a call out of the connection's allowance, whoever calls, and out of the caller's own.
  // Questions of health are free.
  std::optional<Refused> TakeConnectionRate(const Caller* caller, CallGroup group);
  std::optional<Refused> TakeKeyRate(CallGroup group, const Principal* who);

 private:
  void ReadCredential(std::span<const CallHeader> headers, Caller* caller) const;
  Verdict Recognise(const Caller& caller) const;
  PrincipalRef FindKey(const Sha256Digest& digest) const;
  std::shared_ptr<const Verdict> FindToken(const Sha256Digest& digest) const;

  // Constant after construction.
  const AccessPolicy policy_;
  const bool is_active_;
  Clock& clock_;

  // Own synchronisation.
  RateLimiter connections_;
  RateLimiter principals_;
  RateLimiter bad_tokens_;  // by connection
  TokenTable accepted_;
  TokenTable refused_;  // apart, so that a flood of bad tokens pushes no good one out

  mutable Mutex mu_;
  // Guarded by mu_.
  std::shared_ptr<const DigestMap<PrincipalRef>> keys_ GUARDED_BY(mu_);
};

}  // namespace penstock
