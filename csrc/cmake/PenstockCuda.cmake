# PENSTOCK_CUDA: whether what needs CUDA's toolkit is built: csrc/gpu/cuda_api.cc and the kernels. Unless it is set
# (-DPENSTOCK_CUDA=ON|OFF), it is built where CMake finds CUDA's compiler and static runtime, 12.8 or later; ON demands them.
#
# Instrumented builds leave it out: CUDA's compiler does not know their flags. As with PENSTOCK_TRANSPORT the answer is not
# put into the cache.
set(cuda_missing "")
if(PENSTOCK_SANITIZE)
  set(cuda_missing "it is not built with sanitizers")
elseif(NOT DEFINED PENSTOCK_CUDA OR PENSTOCK_CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    unset(CMAKE_CUDA_COMPILER CACHE) # check_language keeps that there was none: a toolkit may have come since
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  find_package(CUDAToolkit QUIET)
  if(NOT CMAKE_CUDA_COMPILER)
    set(cuda_missing "no CUDA compiler (nvcc) was found")
  elseif(NOT TARGET CUDA::cudart_static)
    set(cuda_missing "CUDA's static runtime was not found")
  elseif(CUDAToolkit_VERSION VERSION_LESS 12.8) # the first that knows the architectures below
    set(cuda_missing "CUDA ${CUDAToolkit_VERSION} was found, and 12.8 is needed")
  endif()
endif()

if(NOT DEFINED PENSTOCK_CUDA)
  set(PENSTOCK_CUDA ON)
  if(cuda_missing)
    set(PENSTOCK_CUDA OFF)
    message(STATUS "The CUDA kernels are left out: ${cuda_missing}")
  endif()
elseif(PENSTOCK_CUDA AND cuda_missing)
  message(FATAL_ERROR "PENSTOCK_CUDA is ON, but ${cuda_missing}")
endif()

if(PENSTOCK_CUDA)
  # The A100, H100 and H200, B200, and RTX Blackwell; with code for what comes after them.
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100-real 120)
  endif()
  if(PENSTOCK_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${PENSTOCK_CCACHE})
  endif()
  enable_language(CUDA)
  message(STATUS "CUDA ${CUDAToolkit_VERSION}: kernels for ${CMAKE_CUDA_ARCHITECTURES}")
endif()
