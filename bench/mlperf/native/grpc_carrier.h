// GrpcCarrier: samples as unary calls of the load client's fleet (clients/cpp).

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "load/fleet.h"
#include "native/dispatcher.h"

namespace penstock::loadgen {

// Ownership: owns the connections; borrows the requests, which are sent from where they lie.
class GrpcCarrier final : public Carrier, private load::Fleet::Sink {
 public:
  // `requests` by sample. Its errors are those of connecting.
  static Result<std::unique_ptr<Carrier>> Connect(load::FleetOptions options,
                                                  const std::vector<std::string>* requests,
                                                  Carrier::Sink* sink, int wake_fd);

  void Send(size_t token, size_t sample) override;
  void Turn() override;
  void Abandon() override;

 private:
  GrpcCarrier(const std::vector<std::string>* requests, Carrier::Sink* sink)
      : requests_(*requests), sink_(*sink) {}

  void OnAnswer(uint64_t token, const load::Answer& answer) override;

  const std::vector<std::string>& requests_;
  Carrier::Sink& sink_;
  std::unique_ptr<load::Fleet> fleet_;
};

// The server's name and version, as it says itself: LoadGen's rules want a system behind a network
// to be asked over it. Answers of `options.target.path` are ServerMetadataResponses.
// Blocking: for at most a few seconds.
Result<std::string> AskServerName(load::FleetOptions options);

}  // namespace penstock::loadgen
