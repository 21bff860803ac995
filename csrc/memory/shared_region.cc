#include "memory/shared_region.h"

#include "base/strcat.h"
#include "memory/region_closer.h"

namespace penstock {

Status InvalidRegion(const SharedRegionInfo& info, std::string_view why) {
  return InvalidArgument(
      StrCat("failed to register shared memory region '", info.name, "': invalid args: ", why));
}

std::shared_ptr<const SharedRegion> SharedRegion::Share(std::unique_ptr<const SharedRegion> region,
                                                        std::shared_ptr<RegionCloser> closer) {
  return {region.release(),
          [closer = std::move(closer)](const SharedRegion* unused) { closer->Close(unused); }};
}

}  // namespace penstock
