#include "engine/access.h"

#include <algorithm>
#include <cctype>
#include <cstdio>

#include "base/clock.h"
#include "base/strcat.h"

namespace penstock {
namespace {

constexpr std::string_view kAuthorization = "authorization";
constexpr std::string_view kApiKey = "x-api-key";
constexpr std::string_view kBearer = "bearer ";

std::string Number(double value) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.6g", value);
  return text.data();
}

// Whether many may be called so: gRPC's name for every client of a Unix socket, and none.
bool IsUnnamed(std::string_view connection) { return connection.empty() || connection == "unix:"; }

bool StartsWithBearer(std::string_view value) {
  const auto is_same = [](char lower, char any) {
    return std::tolower(static_cast<unsigned char>(any)) == lower;
  };
  return value.size() > kBearer.size() &&
         std::equal(kBearer.begin(), kBearer.end(), value.begin(), is_same);
}

Status OverRate(std::string_view whose, const RateLimit& limit, int64_t wait_ns) {
  const int64_t wait_ms = (wait_ns + kNsPerMs - 1) / kNsPerMs;
  return ResourceExhausted(StrCat(whose, " is over its limit of ", Number(limit.per_second),
                                  " calls per second (at most ", Number(std::max(limit.burst, 1.0)),
                                  " at once); try again in ", wait_ms, " ms"))
      .WithRetryAfter(wait_ms);
}

Refusal ReasonOf(const Status& verdict) {
  return verdict.code() == StatusCode::kUnauthenticated ? Refusal::kUnauthenticated
                                                        : Refusal::kUnverified;
}

}  // namespace

Status CheckOwnSize(const Principal* who, size_t message_bytes, uint64_t shared_bytes) {
  if (who == nullptr || who->max_request_bytes == 0) return Status::Ok();
  uint64_t whole = 0;
  const bool fits = !__builtin_add_overflow(message_bytes, shared_bytes, &whole) &&
                    whole <= who->max_request_bytes;
  if (fits) return Status::Ok();
  const std::string beside =
      shared_bytes == 0 ? "" : StrCat(" and ", shared_bytes, " in shared memory");
  return ResourceExhausted(StrCat("request of ", message_bytes, " bytes", beside,
                                  " exceeds the limit of ", who->name, ": ", who->max_request_bytes,
                                  " bytes"));
}

bool AccessPolicy::is_active() const {
  const auto is_set = [](const auto& each) { return each.has_value(); };
  return needs_identity || connection_rate.per_second > 0 ||
         std::any_of(restricted.begin(), restricted.end(), is_set);
}

AccessControl::AccessControl(AccessPolicy policy, Clock& clock)
    : policy_(std::move(policy)),
      is_active_(policy_.is_active()),
      clock_(clock),
      connections_(policy_.max_callers),
      principals_(policy_.max_callers),
      bad_tokens_(policy_.max_callers),
      accepted_(policy_.max_tokens),
      refused_(policy_.max_refused),
      keys_(std::make_shared<const DigestMap<PrincipalRef>>()) {}

Caller AccessControl::Identify(std::span<const CallHeader> headers,
                               std::string_view connection) const {
  Caller caller;
  if (!is_active_) return caller;
  caller.connection = connection;
  for (size_t i = 0; i < policy_.restricted.size(); ++i) {
    const auto& rule = policy_.restricted[i];
    if (!rule.has_value()) continue;
    for (const auto& [name, value] : headers) {
      if (name == rule->header && EqualInConstantTime(value, rule->value)) caller.opened.set(i);
    }
  }
  if (policy_.needs_identity) ReadCredential(headers, &caller);
  return caller;
}

void AccessControl::ReadCredential(std::span<const CallHeader> headers, Caller* caller) const {
  std::optional<std::string_view> key;
  std::optional<std::string_view> authorization;
  for (const auto& [name, value] : headers) {
    if (name != kApiKey && name != kAuthorization) continue;
    auto& found = name == kApiKey ? key : authorization;
    if (found.has_value()) {
      caller->fault = StrCat("the call has more than one header '", name, "'");
      return;
    }
    found = value;
  }
  if (!key.has_value() && !authorization.has_value()) return;
  if (!key.has_value() && !StartsWithBearer(*authorization)) {
    caller->fault = "the header 'authorization' is not 'Bearer' and a key or token";
    return;
  }
  const std::string_view credential =
      key.has_value() ? *key : authorization->substr(kBearer.size());
  caller->has_credential = true;
  caller->digest = Sha256(credential);
  if (policy_.has_tokens) caller->credential = credential;
}

bool AccessControl::NeedsVerification(const Caller& caller, CallGroup group) const {
  const auto bit = static_cast<size_t>(group);
  if (policy_.open_groups[bit]) return false;
  if (policy_.restricted[bit].has_value() && !caller.opened[bit]) return false;
  return policy_.has_tokens && caller.has_credential && FindKey(caller.digest) == nullptr &&
         FindToken(caller.digest) == nullptr;
}

std::optional<Refused> AccessControl::RefuseVerification(const Caller& caller) const {
  if (IsUnnamed(caller.connection)) return std::nullopt;
  const int64_t wait_ns = bad_tokens_.Wait(caller.connection, kBadTokens, clock_.NowNs());
  if (wait_ns <= 0) return std::nullopt;
  const int64_t wait_ms = (wait_ns + kNsPerMs - 1) / kNsPerMs;
  return Refused{Refusal::kUnverified,
                 ResourceExhausted(StrCat("this connection brings too many tokens that are not "
                                          "good; try again in ",
                                          wait_ms, " ms"))
                     .WithRetryAfter(wait_ms)};
}

void AccessControl::Remember(const Caller& caller, Verdict verdict, int64_t until_ns) {
  const auto* const refusal = std::get_if<Status>(&verdict);
  // Where there are no keys to verify with, nothing is known against it.
  const bool is_bad = refusal != nullptr && refusal->code() == StatusCode::kUnauthenticated;
  if (is_bad && !IsUnnamed(caller.connection)) {
    bad_tokens_.Charge(caller.connection, kBadTokens, clock_.NowNs());
  }
  TokenTable& table = refusal != nullptr ? refused_ : accepted_;
  table.Put(caller.digest, std::move(verdict), until_ns);
}

void AccessControl::SetKeys(DigestMap<PrincipalRef> keys) {
  auto shared = std::make_shared<const DigestMap<PrincipalRef>>(std::move(keys));
  MutexLock lock(mu_);
  keys_.swap(shared);
}

void AccessControl::ForgetTokens() {
  accepted_.Clear();
  refused_.Clear();
}

PrincipalRef AccessControl::FindKey(const Sha256Digest& digest) const {
  MutexLock lock(mu_);
  const auto found = keys_->find(digest);
  return found == keys_->end() ? nullptr : found->second;
}

std::shared_ptr<const Verdict> AccessControl::FindToken(const Sha256Digest& digest) const {
  const int64_t now_ns = clock_.NowNs();
  if (auto verdict = accepted_.Find(digest, now_ns)) return verdict;
  return refused_.Find(digest, now_ns);
}

Verdict AccessControl::Recognise(const Caller& caller) const {
  if (!caller.fault.empty()) return Unauthenticated(caller.fault);
  if (!caller.has_credential) {
    return Unauthenticated(
        "this server wants to know who calls: send a key or token as header 'x-api-key' or as "
        "'authorization: Bearer ...'");
  }
  if (PrincipalRef key = FindKey(caller.digest)) return key;
  if (policy_.has_tokens) {
    if (const auto verdict = FindToken(caller.digest)) return *verdict;
  }
  return Unauthenticated("the key or token is not known to this server");
}

std::optional<Refused> AccessControl::Authorize(const Caller* caller, CallGroup group,
                                                PrincipalRef* who) const {
  if (!is_active_ || (caller != nullptr && caller->is_server)) return std::nullopt;
  static const Caller kNobody;
  if (caller == nullptr) caller = &kNobody;
  const auto bit = static_cast<size_t>(group);
  if (const auto& rule = policy_.restricted[bit]; rule.has_value() && !caller->opened[bit]) {
    return Refused{
        Refusal::kRestricted,
        Unavailable(StrCat("This protocol is restricted, expecting header '", rule->header, "'"))};
  }
  if (!policy_.needs_identity || policy_.open_groups[bit]) return std::nullopt;
  Verdict verdict = Recognise(*caller);
  if (const auto* refusal = std::get_if<Status>(&verdict)) {
    return Refused{ReasonOf(*refusal), *refusal};
  }
  *who = std::get<PrincipalRef>(std::move(verdict));
  if ((*who)->groups[bit]) return std::nullopt;
  return Refused{Refusal::kPermissionDenied,
                 PermissionDenied(StrCat((*who)->name, " may not call the group '",
                                         CallGroupName(group), "' of this server"))};
}

std::optional<Refused> AccessControl::TakeConnectionRate(const Caller* caller, CallGroup group) {
  const bool is_counted = caller != nullptr && !caller->is_server && group != CallGroup::kHealth;
  if (!is_active_ || !is_counted) return std::nullopt;
  const RateLimit& each = policy_.connection_rate;
  const int64_t wait_ns = connections_.Take(caller->connection, each, clock_.NowNs());
  if (wait_ns <= 0) return std::nullopt;
  return Refused{Refusal::kConnectionRate, OverRate("this connection", each, wait_ns)};
}

std::optional<Refused> AccessControl::TakeKeyRate(CallGroup group, const Principal* who) {
  if (who == nullptr || group == CallGroup::kHealth) return std::nullopt;
  const int64_t now_ns = clock_.NowNs();
  if (const int64_t wait_ns = principals_.Take(who->name, who->rate, now_ns); wait_ns > 0) {
    return Refused{Refusal::kKeyRate, OverRate(who->name, who->rate, wait_ns)};
  }
  return std::nullopt;
}

}  // namespace penstock
