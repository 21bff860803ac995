#include "memory/shared_memory.h"

#include <utility>

#include "base/strcat.h"

namespace penstock {

SharedMemory::~SharedMemory() {
  Regions left;
  {
    MutexLock lock(mu_);
    regions_.swap(left);
  }
  left.clear();
  if (closer_ != nullptr) closer_->Stop();
}

Status SharedMemory::CheckAllowed() const {
  if (options_.is_allowed) return Status::Ok();
  return Unimplemented(
      "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to "
      "enable.");
}

Status SharedMemory::CheckNameLocked(const std::string& name) const {
  if (!regions_.contains(name)) return Status::Ok();
  return AlreadyExists(StrCat("shared memory region '", name, "' already in manager"));
}

Status SharedMemory::Register(SharedRegionInfo info) {
  PENSTOCK_RETURN_IF_ERROR(CheckAllowed());
  if (info.name.empty() || info.name.size() > kMaxNameBytes) {
    return InvalidArgument(
        StrCat("failed to register shared memory region: invalid args: the name "
               "must have 1 to ",
               kMaxNameBytes, " bytes, got ", info.name.size()));
  }
  const std::string name = info.name;
  {
    MutexLock lock(mu_);
    PENSTOCK_RETURN_IF_ERROR(CheckNameLocked(name));
  }
  if (!closer_->TakePlace(options_.max_regions)) {
    return ResourceExhausted(StrCat("failed to register shared memory region '", name,
                                    "': ", options_.max_regions, " are open, which is the limit"));
  }
  auto opened = SharedRegion::Open(std::move(info), closer_);
  if (!opened.ok()) {
    closer_->LeavePlace();
    return opened.status();
  }
  std::shared_ptr<const SharedRegion> region = *std::move(opened);
  MutexLock lock(mu_);
  PENSTOCK_RETURN_IF_ERROR(CheckNameLocked(name));  // another may have been quicker
  regions_.emplace(name, std::move(region));
  return Status::Ok();
}

Status SharedMemory::Unregister(std::string_view name) {
  PENSTOCK_RETURN_IF_ERROR(CheckAllowed());
  Regions gone;
  {
    MutexLock lock(mu_);
    if (name.empty()) {
      regions_.swap(gone);
    } else if (const auto found = regions_.find(name); found != regions_.end()) {
      gone.insert(regions_.extract(found));
    }
  }
  gone.clear();
  closer_->WaitIdle();  // so that a client finds closed what nobody used
  return Status::Ok();
}

Result<std::vector<SharedRegionInfo>> SharedMemory::List(std::string_view name) const {
  PENSTOCK_RETURN_IF_ERROR(CheckAllowed());
  std::vector<SharedRegionInfo> infos;
  MutexLock lock(mu_);
  if (name.empty()) {
    for (const auto& [key, region] : regions_) infos.push_back(region->info());
    return infos;
  }
  const auto found = regions_.find(name);
  if (found == regions_.end()) {
    return NotFound(StrCat("Unable to find system shared memory region: '",
                           name.substr(0, kMaxNameBytes), "'"));
  }
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
