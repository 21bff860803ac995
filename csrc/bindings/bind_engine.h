// What module.cc calls: one function per bound class.

#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <utility>

#include "engine/engine.h"

namespace penstock::bindings {

// LoadedModel and Version as Python holds them: the engine must outlive them.
struct PyLoadedModel {
  std::shared_ptr<Engine> engine;
  std::shared_ptr<BackendModel> model;
  std::string backend_description;
};

struct PyVersion {
  std::shared_ptr<CompletionQueue> completions;  // draining pushes there
  std::shared_ptr<Engine> engine;
  std::shared_ptr<ModelVersion> version;
};

// The engine's shared memory.
struct PySharedMemory {
  std::shared_ptr<Engine> engine;
};

void BindSpecs(
    pybind11::module_& module);  // TensorSpec, InputSpec, OutputSpec, QueuePolicy, VersionSpec
void BindVersion(pybind11::module_& module);       // LoadedModel, Version
void BindAccess(pybind11::module_& module);        // Access, AccessPolicy, Caller, Principal
void BindSharedMemory(pybind11::module_& module);  // SharedMemory
void BindEngine(pybind11::module_& module);        // Engine, Call
void BindTransport(pybind11::module_& module);  // Transport, ServerCall; built where transport is
void BindLoad(pybind11::module_& module);       // LoadClient; built where nghttp2 is

pybind11::dict ToDict(const Histogram& histogram);

// Version.stats(): the dictionary of penstock.core.VersionStats.
pybind11::dict VersionStatsDict(const ModelVersion& version);

}  // namespace penstock::bindings
