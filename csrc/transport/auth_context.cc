#include "transport/auth_context.h"

#include "base/strcat.h"

namespace penstock {

std::shared_ptr<const AuthContext> AuthContextOf(const TlsSession& session) {
  auto context = std::make_shared<AuthContext>();
  context->emplace_back("transport_security_type", "ssl");
  if (std::string pem = session.peer_pem(); !pem.empty()) {
    context->emplace_back("x509_subject", session.peer_subject());
    if (std::string name = session.peer_common_name(); !name.empty()) {
      context->emplace_back("x509_common_name", std::move(name));
    }
    context->emplace_back("x509_pem_cert", std::move(pem));
    for (const TlsSession::AlternativeName& name : session.peer_alternative_names()) {
      context->emplace_back("x509_subject_alternative_name", name.value);
      if (!name.kind.empty()) context->emplace_back(StrCat("peer_", name.kind), name.value);
    }
  }
  context->emplace_back("security_level", "TSI_PRIVACY_AND_INTEGRITY");
  context->emplace_back("ssl_session_reused", "false");  // none is resumed
  return context;
}

}  // namespace penstock
