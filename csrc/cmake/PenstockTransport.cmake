# PENSTOCK_TRANSPORT: whether csrc/transport is built. Unless it is set (-DPENSTOCK_TRANSPORT=ON|OFF), it is built where
# nghttp2, OpenSSL and zlib are found; ON demands them. `penstock_transport_needs` is what it is linked with.
#
# The answer is not put into the cache: who installs the headers later gets the transport with the next build.
find_package(OpenSSL 3.0 QUIET)
find_package(ZLIB QUIET)
find_path(NGHTTP2_INCLUDE_DIR nghttp2/nghttp2.h)
find_library(NGHTTP2_LIBRARY nghttp2)

set(missing "")
foreach(need NGHTTP2_INCLUDE_DIR NGHTTP2_LIBRARY OPENSSL_FOUND ZLIB_FOUND)
  if(NOT ${need})
    list(APPEND missing ${need})
  endif()
endforeach()

if(NOT DEFINED PENSTOCK_TRANSPORT)
  set(PENSTOCK_TRANSPORT ON)
  if(missing)
    set(PENSTOCK_TRANSPORT OFF)
    message(STATUS "The native transport is left out: not found: ${missing} (of nghttp2, OpenSSL 3, zlib)")
  endif()
endif()

if(PENSTOCK_TRANSPORT)
  if(missing)
    message(FATAL_ERROR "PENSTOCK_TRANSPORT is ON, but not found: ${missing} (of nghttp2, OpenSSL 3, zlib)")
  endif()
  add_library(penstock_transport_needs INTERFACE)
  target_include_directories(penstock_transport_needs SYSTEM INTERFACE ${NGHTTP2_INCLUDE_DIR})
  target_link_libraries(penstock_transport_needs INTERFACE ${NGHTTP2_LIBRARY} OpenSSL::SSL ZLIB::ZLIB)
endif()
