// OpenCudaLibraries: CUDA's libraries where pip put them, opened for the engine's providers.

#pragma once

#include <string>
#include <vector>

namespace penstock::ort {

// Opens, never to close them, LibrariesToOpen of the directories. A provider finds them then, where
// the loader by itself would not look: by the name that it is linked with, which has the major
// version. Names of one library are not each other's, so that wheels of two versions of CUDA may lie
// side by side. What is missing is left to the loader, and what does not open is logged: the provider
// says which it lacks.
void OpenCudaLibraries(const std::vector<std::string>& directories);

// Of CUDA's runtime that the engine's CUDA provider is linked with, as CUDA counts (13000: 13.0);
// `library`: the engine, beside which it lies. 0: it is not open, and is not opened.
int ProviderCudaVersion(const std::string& library);

// The files of those of CUDA's libraries that a provider of the engine is linked with or opens by
// name, in the order of what needs what. Of each library and each of its major versions the one in the
// first directory that has it.
std::vector<std::string> LibrariesToOpen(const std::vector<std::string>& directories);

}  // namespace penstock::ort
