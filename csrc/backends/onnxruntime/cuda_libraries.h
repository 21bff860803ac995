// OpenCudaLibraries: CUDA's libraries where pip put them, opened for the engine's providers.

#pragma once

#include <string>
#include <vector>

namespace penstock::ort {

// Opens, never to close them, those of CUDA's libraries that a provider of the engine is linked with
// or opens by name, in the order of what needs what, from the first of `directories` that has each.
// A provider finds them then, where the loader by itself would not look. What is missing is left to
// the loader, and what does not open is logged: the provider says which it lacks.
void OpenCudaLibraries(const std::vector<std::string>& directories);

// The file that is opened for a library: "libcudart.so" of "libcudart.so.13"; "" where the directory
// has none.
std::string FindLibrary(const std::string& directory, const std::string& stem);

}  // namespace penstock::ort
