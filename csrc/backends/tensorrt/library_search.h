// LibraryCandidates: where TensorRT's runtime may lie. Nothing is opened here.

#pragma once

#include <string>
#include <vector>

#include "base/status.h"

namespace penstock::tensorrt {

// The majors whose libraries are looked for, most wanted first.
inline constexpr int kMajors[] = {11, 10};

struct SearchOptions {
  std::string library;                   // configured: a file, or the directory that holds it
  std::string root;                      // TensorRT_ROOT of the environment: an unpacked archive
  std::vector<std::string> directories;  // of pip's packages
  bool allows_host_code = false;         // plans may hold code that the host runs
};

// What to try, in order: the configured one and nothing else, or that of the environment, of pip's
// packages, and what the loader finds (LD_LIBRARY_PATH, the system). Of each place the full runtime
// comes before the lean one, which runs version-compatible plans only. FAILED_PRECONDITION where
// the configured one does not exist or holds no runtime.
Result<std::vector<std::string>> LibraryCandidates(const SearchOptions& options);

// Whether a candidate is the lean runtime, by its name.
bool IsLean(const std::string& candidate);

// Which of those places a candidate is of, in words that name no path: "the one of pip's packages".
std::string PlaceOf(const SearchOptions& options, const std::string& candidate);

// The library of TensorRT's own plug-ins that belongs to a candidate: beside it, or, where the loader
// has to find that, found likewise. It need not be there.
std::string PluginLibrary(const std::string& candidate, int major);

}  // namespace penstock::tensorrt
