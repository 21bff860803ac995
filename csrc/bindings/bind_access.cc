#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bindings/bind_engine.h"
#include "bindings/errors.h"
#include "bindings/py_access.h"
#include "bindings/seconds.h"

namespace py = pybind11;

namespace penstock::bindings {
namespace {

CallGroup GroupFrom(const std::string& name) {
  if (const auto group = CallGroupFrom(name)) return *group;
  throw py::value_error("unknown group '" + name + "'");
}

CallGroups GroupsFrom(const std::vector<std::string>& names) {
  CallGroups groups;
  for (const std::string& name : names) groups.set(static_cast<size_t>(GroupFrom(name)));
  return groups;
}

RateLimit RateFrom(double per_second, double burst) {
  if (!(per_second >= 0 && burst >= 1)) {
    throw py::value_error("a rate is at least 0 per second, with a burst of at least 1");
  }
  return {per_second, burst};
}

// NOLINTNEXTLINE(readability-function-size): one parameter per keyword argument
AccessPolicy MakePolicy(
    const std::map<std::string, std::pair<std::string, std::string>>& restricted,
    bool needs_identity, const std::vector<std::string>& open_groups, bool has_tokens,
    double connection_rate, double connection_burst) {
  AccessPolicy policy;
  for (const auto& [group, rule] : restricted) {
    policy.restricted[static_cast<size_t>(GroupFrom(group))] =
        RestrictedGroup{rule.first, rule.second};
  }
  policy.needs_identity = needs_identity;
  policy.open_groups = GroupsFrom(open_groups);
  policy.has_tokens = has_tokens;
  policy.connection_rate = RateFrom(connection_rate, connection_burst);
  return policy;
}

std::shared_ptr<Principal> MakePrincipal(std::string name, const std::vector<std::string>& groups,
                                         double per_second, double burst,
                                         size_t max_request_bytes) {
  return std::make_shared<Principal>(Principal{std::move(name), GroupsFrom(groups),
                                               RateFrom(per_second, burst), max_request_bytes});
}

Sha256Digest DigestFrom(std::string_view bytes) {
  Sha256Digest digest;
  if (bytes.size() != digest.size()) {
    throw py::value_error("expected a digest of " + std::to_string(digest.size()) + " bytes, got " +
                          std::to_string(bytes.size()));
  }
  std::copy(bytes.begin(), bytes.end(), digest.begin());
  return digest;
}

// Text or bytes of a header, borrowed from the object.
std::string_view Borrow(const py::handle& text) {
  if (py::isinstance<py::bytes>(text)) {
    return {PyBytes_AS_STRING(text.ptr()), static_cast<size_t>(PyBytes_GET_SIZE(text.ptr()))};
  }
  Py_ssize_t size = 0;
  const char* data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
  if (data == nullptr) throw py::error_already_set();
  return {data, static_cast<size_t>(size)};
}

Caller Identify(const PyAccess& self, const py::object& metadata, const py::str& connection) {
  std::vector<CallHeader> headers;
  const py::tuple kept(metadata);  // the views below are on what it holds
  headers.reserve(kept.size());
  for (const py::handle& each : kept) {
    if (!PyTuple_Check(each.ptr()) || PyTuple_GET_SIZE(each.ptr()) != 2) {
      throw py::type_error("identify: metadata is pairs of key and value");
    }
    headers.emplace_back(Borrow(PyTuple_GET_ITEM(each.ptr(), 0)),
                         Borrow(PyTuple_GET_ITEM(each.ptr(), 1)));
  }
  return self.access().Identify(headers, Borrow(connection));
}

void SetKeys(const PyAccess& self,
             const std::vector<std::pair<py::bytes, std::shared_ptr<Principal>>>& principals) {
  DigestMap<PrincipalRef> keys;
  for (const auto& [digest, principal] : principals) {
    if (principal == nullptr) throw py::type_error("set_keys: a principal is None");
    keys.insert_or_assign(DigestFrom(std::string_view(digest)), principal);
  }
  self.access().SetKeys(std::move(keys));
}

void Accept(const PyAccess& self, const Caller& caller, std::shared_ptr<Principal> principal,
            double valid_s) {
  if (principal == nullptr) throw py::type_error("accept: the principal is None");
  self.access().Remember(caller, PrincipalRef(std::move(principal)), self.After(valid_s));
}

void Refuse(const PyAccess& self, const Caller& caller, int code, std::string reason,
            double valid_s) {
  const Status status(static_cast<StatusCode>(code), std::move(reason));
  if (status.ok()) throw py::value_error("refuse: OK is no refusal");
  self.access().Remember(caller, status, self.After(valid_s));
}

void Admit(const PyAccess& self, const std::string& name, size_t size_bytes, const Caller* caller) {
  const CallGroup group = GroupFrom(name);
  if (group == CallGroup::kInference) {
    throw py::value_error("inference is admitted by infer: its place is given back with it");
  }
  ThrowIfError(self.engine->admission().Admit(caller, group, size_bytes));
}

}  // namespace

int64_t PyAccess::After(double seconds) const {
  return engine->clock().NowNs() + TimeoutNs(seconds);
}

void BindAccess(py::module_& module) {
  py::class_<Caller>(module, "Caller")
      .def_property_readonly("credential", [](const Caller& self) { return self.credential; })
      .def_static("server", [] {
        Caller caller;
        caller.is_server = true;
        return caller;
      });
  py::class_<Principal, std::shared_ptr<Principal>>(module, "Principal")
      .def(py::init(&MakePrincipal), py::kw_only(), py::arg("name"), py::arg("groups"),
           py::arg("per_second") = 0.0, py::arg("burst") = 1.0, py::arg("max_request_bytes") = 0);
  py::class_<AccessPolicy>(module, "AccessPolicy")
      .def(py::init(&MakePolicy), py::kw_only(),
           py::arg("restricted") = std::map<std::string, std::pair<std::string, std::string>>(),
           py::arg("needs_identity") = false, py::arg("open_groups") = std::vector<std::string>(),
           py::arg("has_tokens") = false, py::arg("connection_rate") = 0.0,
           py::arg("connection_burst") = 1.0);
  py::class_<PyAccess>(module, "Access")
      .def_property_readonly("is_active",
                             [](const PyAccess& self) { return self.access().is_active(); })
      .def("identify", &Identify, py::arg("metadata"), py::arg("connection"))
      .def(
          "needs_verification",
          [](const PyAccess& self, const std::string& group, const Caller& caller) {
            return self.access().NeedsVerification(caller, GroupFrom(group));
          },
          py::arg("group"), py::arg("caller"))
      .def(
          "admit_verification",
          [](const PyAccess& self, const Caller& caller) {
            ThrowIfError(self.engine->admission().AdmitVerification(caller));
          },
          py::arg("caller"))
      .def("set_keys", &SetKeys, py::arg("keys"))
      .def("accept", &Accept, py::arg("caller"), py::arg("principal"), py::arg("valid_s"))
      .def("refuse", &Refuse, py::arg("caller"), py::arg("code"), py::arg("reason"),
           py::arg("valid_s"))
      .def("forget_tokens", [](const PyAccess& self) { self.access().ForgetTokens(); })
      .def(
          "authorize",
          [](const PyAccess& self, const std::string& group, const Caller* caller) {
            ThrowIfError(self.engine->admission().Authorize(caller, GroupFrom(group)));
          },
          py::arg("group"), py::arg("caller") = nullptr)
      .def("admit", &Admit, py::arg("group"), py::arg("size_bytes"), py::arg("caller") = nullptr);
}

}  // namespace penstock::bindings
