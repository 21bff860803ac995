// penstock-load: the load client on the command line.
//
// Exit status: 0 every request was answered rightly, 1 not, 2 the flags or the server will not do.

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "load/flags.h"

namespace {

using namespace penstock;        // NOLINT: a main file
using namespace penstock::load;  // NOLINT: likewise

int Refuse(const Status& status) {
  std::fprintf(stderr, "penstock-load: %s\n", std::string(status.message()).c_str());
  return 2;
}

Status WriteFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  if (!(file << text).flush()) return InvalidArgument("the file " + path + " cannot be written");
  return Status::Ok();
}

int Main(const std::vector<std::string>& arguments) {
  auto flags = ParseFlags(arguments);
  if (!flags.ok()) return Refuse(flags.status());
  if (flags->help) {
    std::fputs(FlagsHelp().c_str(), stdout);
    return 0;
  }
  const auto workload = Workload::Create(std::move(flags->samples), flags->workload);
  if (!workload.ok()) return Refuse(workload.status());
  const auto report = Run(flags->run, *workload);
  if (!report.ok()) return Refuse(report.status());
  std::fputs(report.value().ToText().c_str(), stdout);
  if (!flags->json.empty()) {
    const Status status = WriteFile(flags->json, report.value().ToJson());
    if (!status.ok()) return Refuse(status);
  }
  return report.value().is_clean() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) { return Main(std::vector<std::string>(argv + 1, argv + argc)); }
