# What the field trusts, found once. What is missing is told all at once, with the Debian packages
# that bring it (scripts/setup installs them).
include(FindPkgConfig)
set(_detente_missing "")
macro(_detente_needs package found)
    if(NOT ${found})
        list(APPEND _detente_missing ${package})
    endif()
endmacro()

find_package(Threads REQUIRED)
find_package(Boost 1.81 QUIET COMPONENTS json)
_detente_needs("libboost1.81-dev libboost-json1.81-dev" Boost_FOUND)
find_package(fmt QUIET)
_detente_needs(libfmt-dev fmt_FOUND)
find_package(spdlog QUIET)
_detente_needs(libspdlog-dev spdlog_FOUND)
find_package(tomlplusplus QUIET)
_detente_needs(libtomlplusplus-dev tomlplusplus_FOUND)
pkg_check_modules(zmq QUIET IMPORTED_TARGET libzmq)
_detente_needs(libzmq3-dev zmq_FOUND)
pkg_check_modules(hwy QUIET IMPORTED_TARGET libhwy)
_detente_needs(libhwy-dev hwy_FOUND)
pkg_check_modules(xxhash QUIET IMPORTED_TARGET libxxhash)
_detente_needs(libxxhash-dev xxhash_FOUND)
find_program(FLATC flatc)
_detente_needs("flatbuffers-compiler libflatbuffers-dev" FLATC)
find_path(DETENTE_CLI11_INCLUDE CLI/CLI.hpp)
_detente_needs(libcli11-dev DETENTE_CLI11_INCLUDE)
mark_as_advanced(FLATC DETENTE_CLI11_INCLUDE)

if(_detente_missing)
    list(JOIN _detente_missing " " _detente_missing)
    message(FATAL_ERROR "Not found, and needed: ${_detente_missing}\n"
        "On Debian: apt-get install --no-install-recommends ${_detente_missing}\n"
        "scripts/build does this by itself.")
endif()

# An allocator that is fast where millions of small messages come and go: a large simulation
# makes 1.8 times the events, in an eighth less memory. Sanitizers bring their own.
find_library(DETENTE_TCMALLOC NAMES tcmalloc_minimal libtcmalloc_minimal.so.4)
mark_as_advanced(DETENTE_TCMALLOC)
