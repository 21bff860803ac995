# How every target of this project is compiled: link `penstock_options` (privately) and get it all.
#
# Assertions stay on in every build type: a broken invariant must stop the server, not answer wrongly. Checks that cost
# more than a comparison belong in tests.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(PENSTOCK_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")  # compiles in half the time
  set(CMAKE_UNITY_BUILD_BATCH_SIZE 32)  # a folder at once: and that in half again
else()
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g")
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2")

find_package(Threads REQUIRED)
find_program(PENSTOCK_CCACHE ccache)
if(PENSTOCK_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${PENSTOCK_CCACHE})
endif()

add_library(penstock_options INTERFACE)
target_include_directories(penstock_options INTERFACE ${PROJECT_SOURCE_DIR}/csrc)
target_compile_options(penstock_options INTERFACE -Wall -Wextra $<$<BOOL:${PENSTOCK_WERROR}>:-Werror>)
target_compile_definitions(penstock_options INTERFACE PENSTOCK_VERSION="${PROJECT_VERSION}")
target_link_libraries(penstock_options INTERFACE Threads::Threads)

# Warnings of a target that has CUDA's sources: nvcc takes no `penstock_options`.
function(penstock_cuda_warnings target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra>
    $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra>)
  if(PENSTOCK_WERROR)
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-Werror> $<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings>)
  endif()
endfunction()

if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  # A plug-in's entry has a C name, to be found by dlsym, and C++ types: both sides are of one build.
  target_compile_options(penstock_options INTERFACE -Wthread-safety -Wno-return-type-c-linkage)
endif()

if(CMAKE_UNITY_BUILD AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # It takes what a unity build includes for headers, where a class may have no field of an anonymous namespace's type.
  target_compile_options(penstock_options INTERFACE -Wno-subobject-linkage)
endif()

# Instrumentation is for the whole build or it is worth nothing, hence not on the interface target.
if(PENSTOCK_SANITIZE)
  add_compile_options(-fsanitize=${PENSTOCK_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${PENSTOCK_SANITIZE})
  if(PENSTOCK_SANITIZE MATCHES address)
    add_compile_definitions(PENSTOCK_ADDRESS_SANITIZER)  # pools keep nothing: what is freed is to be seen
  endif()
endif()
