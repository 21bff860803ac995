// What is told of the engine's providers of GPUs that cannot be used, and what to do about it.

#pragma once

#include <string>

namespace penstock::ort {

// A message of the engine's with each path in it cut down to the file's name.
std::string WithoutDirectories(const std::string& message);

// As CUDA counts its versions: 12020 is 12.2; 0: not known.
struct CudaVersions {
  int driver = 0;
  int provider = 0;  // of the runtime that an open provider is linked with
};

// The engine's words for why a provider did not open or start, without paths and without where in its
// source that is; behind them, where it is known, what is missing and how to get it. Pure.
std::string ProviderFailure(const std::string& message, const CudaVersions& versions);

// How to get a library with providers of GPUs in place of `library`, which has none: by what lies
// beside that, as pip leaves both where the packages onnxruntime and onnxruntime-gpu are installed.
// Empty: whatever lies beside it.
std::string HowToGetProviders(const std::string& library);

}  // namespace penstock::ort
