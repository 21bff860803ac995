#include "memory/shared_memory.h"

#include <utility>

#include "base/strcat.h"
#include "memory/system_region.h"

namespace penstock {
namespace {

Status NotOfThatKind(RegionKind kind, std::string_view name) {
  const bool is_cuda = kind == RegionKind::kCuda;
  return NotFound(StrCat("The region named '", name, "' is registered as ",
                         is_cuda ? "system shared memory, not CUDA shared memory"
                                 : "CUDA shared memory, not system shared memory"));
}

}  // namespace

SharedMemory::SharedMemory(Options options)
    : options_(std::move(options)),
      places_(std::make_shared<RegionPlaces>(options_.max_regions)),
      system_closer_(MakeCloser("ps-regions")),
      cuda_closer_(MakeCloser("ps-gpu-regions")) {}

std::shared_ptr<RegionCloser> SharedMemory::MakeCloser(const char* thread) const {
  return options_.is_allowed ? std::make_shared<RegionCloser>(thread, places_) : nullptr;
}

SharedMemory::~SharedMemory() {
  Regions left;
  {
    MutexLock lock(mu_);
    regions_.swap(left);
  }
  left.clear();
  if (!options_.is_allowed) return;
  system_closer_->Stop();
  cuda_closer_->Stop();
}

Status SharedMemory::CheckAllowed() const {
  if (options_.is_allowed) return Status::Ok();
  return Unimplemented(
      "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to "
      "enable.");
}

Status SharedMemory::CheckCudaUsable() const {
  PENSTOCK_RETURN_IF_ERROR(CheckAllowed());
  if (options_.devices == nullptr) return Unavailable("this program knows no GPUs");
  return options_.devices->CheckUsable();
}

Status SharedMemory::CheckNameLocked(const std::string& name) const {
  if (!regions_.contains(name)) return Status::Ok();
  return AlreadyExists(StrCat("shared memory region '", name, "' already in manager"));
}

Status SharedMemory::Register(SharedRegionInfo info) {
  PENSTOCK_RETURN_IF_ERROR(CheckAllowed());
  info.kind = RegionKind::kSystem;
  return RegisterOpened(std::move(info), &SystemRegion::Open);
}

Status SharedMemory::RegisterCuda(SharedRegionInfo info, std::string_view handle) {
  PENSTOCK_RETURN_IF_ERROR(CheckAllowed());
  if (const Status usable = CheckCudaUsable(); !usable.ok()) {
    return InvalidArgument(StrCat("failed to register CUDA shared memory region: '",
                                  std::string_view(info.name).substr(0, kMaxNameBytes),
                                  "', GPUs not supported: ", usable.message()));
  }
  info.kind = RegionKind::kCuda;
  return RegisterOpened(std::move(info), [this, handle](SharedRegionInfo checked) {
    return options_.devices->Open(std::move(checked), handle);
  });
}

// `open` is called with a name that may be given, under no lock.
Status SharedMemory::RegisterOpened(SharedRegionInfo info, const Open& open) {
  if (info.name.empty() || info.name.size() > kMaxNameBytes) {
    return InvalidArgument(
        StrCat("failed to register shared memory region: invalid args: the name "
               "must have 1 to ",
               kMaxNameBytes, " bytes, got ", info.name.size()));
  }
  const std::string name = info.name;
  const std::shared_ptr<RegionCloser>& closer = CloserOf(info.kind);
  {
    MutexLock lock(mu_);
    PENSTOCK_RETURN_IF_ERROR(CheckNameLocked(name));
  }
  if (!places_->Take()) {
    return ResourceExhausted(StrCat("failed to register shared memory region '", name,
                                    "': ", options_.max_regions, " are open, which is the limit"));
  }
  auto opened = open(std::move(info));
  if (!opened.ok()) {
    places_->Leave(1);
    return opened.status();
  }
  std::shared_ptr<const SharedRegion> region = SharedRegion::Share(*std::move(opened), closer);
  MutexLock lock(mu_);
  PENSTOCK_RETURN_IF_ERROR(CheckNameLocked(name));  // another may have been quicker
  regions_.emplace(name, std::move(region));
  return Status::Ok();
}

Status SharedMemory::Unregister(RegionKind kind, std::string_view name) {
  PENSTOCK_RETURN_IF_ERROR(CheckAllowed());
  Regions gone;
  {
    MutexLock lock(mu_);
    for (auto next = name.empty() ? regions_.begin() : regions_.find(name);
         next != regions_.end();) {
      const auto found = next++;
      if (found->second->info().kind == kind) gone.insert(regions_.extract(found));
      if (!name.empty()) break;
    }
  }
  gone.clear();
  CloserOf(kind)->WaitIdle();  // so that a client finds closed what nobody used
  return Status::Ok();
}

Result<std::vector<SharedRegionInfo>> SharedMemory::List(RegionKind kind,
                                                         std::string_view name) const {
  PENSTOCK_RETURN_IF_ERROR(CheckAllowed());
  std::vector<SharedRegionInfo> infos;
  MutexLock lock(mu_);
  if (name.empty()) {
    for (const auto& [key, region] : regions_) {
      if (region->info().kind == kind) infos.push_back(region->info());
    }
    return infos;
  }
  const auto found = regions_.find(name);
  if (found == regions_.end()) {
    return NotFound(StrCat("Unable to find ", kind == RegionKind::kCuda ? "cuda" : "system",
                           " shared memory region: '", name.substr(0, kMaxNameBytes), "'"));
  }
  if (found->second->info().kind != kind) return NotOfThatKind(kind, name);
  infos.push_back(found->second->info());
  return infos;
}

Result<std::shared_ptr<const SharedRegion>> SharedMemory::Find(std::string_view name) const {
  PENSTOCK_RETURN_IF_ERROR(CheckAllowed());
  MutexLock lock(mu_);
  const auto found = regions_.find(name);
  return found == regions_.end() ? nullptr : found->second;
}

}  // namespace penstock
