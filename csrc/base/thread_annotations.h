// Clang thread-safety annotations; nothing on other compilers. Names as in Abseil.

#pragma once

#if defined(__clang__)
#define PENSTOCK_ATTRIBUTE(x) __attribute__((x))
#else
#define PENSTOCK_ATTRIBUTE(x)
#endif

#define CAPABILITY(x) PENSTOCK_ATTRIBUTE(capability(x))
#define SCOPED_CAPABILITY PENSTOCK_ATTRIBUTE(scoped_lockable)
#define GUARDED_BY(x) PENSTOCK_ATTRIBUTE(guarded_by(x))
#define PT_GUARDED_BY(x) PENSTOCK_ATTRIBUTE(pt_guarded_by(x))
#define ACQUIRED_AFTER(...) PENSTOCK_ATTRIBUTE(acquired_after(__VA_ARGS__))
#define ACQUIRED_BEFORE(...) PENSTOCK_ATTRIBUTE(acquired_before(__VA_ARGS__))
#define REQUIRES(...) PENSTOCK_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define EXCLUDES(...) PENSTOCK_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define ACQUIRE(...) PENSTOCK_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) PENSTOCK_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define RELEASE(...) PENSTOCK_ATTRIBUTE(release_capability(__VA_ARGS__))
#define NO_THREAD_SAFETY_ANALYSIS PENSTOCK_ATTRIBUTE(no_thread_safety_analysis)
