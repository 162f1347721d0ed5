# Finds LibTorch and makes the imported target `detente_libtorch` (torch_cpu and c10 only: the
# umbrella libtorch.so drags in all of CUDA). Looked up, in this order:
#   1. Torch_DIR or CMAKE_PREFIX_PATH: a LibTorch of the user's own
#   2. an installed Python `torch`, found by its spec's path; importing it takes seconds
#   3. build/libtorch, where scripts/build puts the PyPI wheel
# scripts/setup asks the same code (find_torch/), so that it fetches exactly what would be missing.
# Sets DETENTE_TORCH_FOUND, DETENTE_TORCH_SOURCE, DETENTE_TORCH_VERSION, DETENTE_TORCH_ROOT and
# DETENTE_TORCH_LIB. The wheel's own find_package(Torch) fails where no CUDA toolkit is, so the
# target is made from the include and library folders; find_package serves other layouts.
set(DETENTE_TORCH_MINIMUM 2.4)  # events of any device: DeviceGuardImplInterface::synchronizeEvent

function(_detente_torch_version include_dir result)
    set(version "")
    foreach(header torch/headeronly/version.h torch/csrc/api/include/torch/version.h)
        if(NOT version AND EXISTS "${include_dir}/${header}")
            file(STRINGS "${include_dir}/${header}" lines
                REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+")
            string(REGEX MATCHALL " [0-9]+" numbers "${lines}")
            list(JOIN numbers "." version)
            string(REPLACE " " "" version "${version}")
        endif()
    endforeach()
    set(${result} "${version}" PARENT_SCOPE)
endfunction()

# Takes the folder that holds include/ and lib/ if a usable LibTorch is in it.
function(_detente_torch_try root source)
    if(DETENTE_TORCH_FOUND OR NOT EXISTS "${root}/lib/libtorch_cpu.so")
        return()
    endif()
    _detente_torch_version("${root}/include" version)
    if(NOT version OR version VERSION_LESS DETENTE_TORCH_MINIMUM)
        message(STATUS "LibTorch '${version}' in ${root} passed over: "
            "${DETENTE_TORCH_MINIMUM} or newer is needed")
        return()
    endif()
    set(config "${root}/share/cmake/Torch/TorchConfig.cmake")
    if(EXISTS "${config}")
        file(STRINGS "${config}" old_abi REGEX "_GLIBCXX_USE_CXX11_ABI=0")
        if(old_abi)
            message(STATUS "LibTorch ${version} in ${root} passed over: it is built for the old "
                "C++ ABI (take the download named cxx11-abi)")
            return()
        endif()
    endif()
    set(DETENTE_TORCH_FOUND TRUE PARENT_SCOPE)
    set(DETENTE_TORCH_ROOT "${root}" PARENT_SCOPE)
    set(DETENTE_TORCH_LIB "${root}/lib" PARENT_SCOPE)
    set(DETENTE_TORCH_VERSION "${version}" PARENT_SCOPE)
    set(DETENTE_TORCH_SOURCE "${source}" PARENT_SCOPE)
endfunction()

function(_detente_torch_target)
    add_library(detente_libtorch INTERFACE IMPORTED GLOBAL)
    target_include_directories(detente_libtorch SYSTEM INTERFACE
        "${DETENTE_TORCH_ROOT}/include"
        "${DETENTE_TORCH_ROOT}/include/torch/csrc/api/include")
    target_compile_definitions(detente_libtorch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
    target_link_libraries(detente_libtorch INTERFACE
        "${DETENTE_TORCH_LIB}/libtorch_cpu.so" "${DETENTE_TORCH_LIB}/libc10.so")
endfunction()

# Another layout (a distribution's, an import through Torch_DIR): its own package file knows it.
macro(_detente_torch_package)
    find_package(Torch ${DETENTE_TORCH_MINIMUM} QUIET)
    if(Torch_FOUND AND TARGET torch_cpu)
        set(DETENTE_TORCH_FOUND TRUE)
        set(DETENTE_TORCH_SOURCE "find_package(Torch)")
        set(DETENTE_TORCH_VERSION "${Torch_VERSION}")
        get_filename_component(DETENTE_TORCH_LIB "${TORCH_LIBRARY}" DIRECTORY)
        set(DETENTE_TORCH_ROOT "${TORCH_INSTALL_PREFIX}")
        add_library(detente_libtorch INTERFACE IMPORTED GLOBAL)
        target_include_directories(detente_libtorch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
        target_link_libraries(detente_libtorch INTERFACE torch_cpu c10)
    else()
        message(STATUS "LibTorch of ${_detente_torch_config} passed over: that package file finds "
            "none of version ${DETENTE_TORCH_MINIMUM} or newer")
    endif()
endmacro()

macro(detente_find_torch)
    set(DETENTE_TORCH_FOUND FALSE)
    foreach(name SOURCE VERSION ROOT LIB)
        set(DETENTE_TORCH_${name} "")
    endforeach()
    string(REPLACE ":" ";" _detente_torch_prefixes "$ENV{CMAKE_PREFIX_PATH}")
    find_path(_detente_torch_config NAMES TorchConfig.cmake
        PATHS ${Torch_DIR} $ENV{Torch_DIR} ${CMAKE_PREFIX_PATH} ${_detente_torch_prefixes}
        PATH_SUFFIXES share/cmake/Torch torch/share/cmake/Torch lib/cmake/Torch
        NO_CACHE NO_DEFAULT_PATH)
    unset(_detente_torch_prefixes)
    if(_detente_torch_config)
        get_filename_component(_detente_torch_root "${_detente_torch_config}/../../.." ABSOLUTE)
        _detente_torch_try("${_detente_torch_root}" "CMAKE_PREFIX_PATH or Torch_DIR")
        if(NOT DETENTE_TORCH_FOUND AND NOT EXISTS "${_detente_torch_root}/lib/libtorch_cpu.so")
            _detente_torch_package()
        endif()
        unset(_detente_torch_root)
    endif()
    unset(_detente_torch_config)
    if(NOT DETENTE_TORCH_FOUND)
        find_program(DETENTE_PYTHON NAMES python3 python)
        mark_as_advanced(DETENTE_PYTHON)
        set(_detente_torch_python "")
        if(DETENTE_PYTHON)
            execute_process(COMMAND "${DETENTE_PYTHON}" -c
                "import importlib.util as u; s = u.find_spec('torch'); print(s.submodule_search_locations[0] if s and s.submodule_search_locations else '')"
                OUTPUT_VARIABLE _detente_torch_python OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
        endif()
        if(_detente_torch_python)
            _detente_torch_try("${_detente_torch_python}" "Python torch")
        endif()
        unset(_detente_torch_python)
    endif()
    if(NOT DEFINED DETENTE_TORCH_FETCHED)
        set(DETENTE_TORCH_FETCHED "${PROJECT_SOURCE_DIR}/build/libtorch/torch")
    endif()
    _detente_torch_try("${DETENTE_TORCH_FETCHED}" "build/libtorch")
    if(DETENTE_TORCH_FOUND)
        if(NOT TARGET detente_libtorch)
            _detente_torch_target()
        endif()
        message(STATUS "LibTorch ${DETENTE_TORCH_VERSION} (${DETENTE_TORCH_SOURCE}): "
            "${DETENTE_TORCH_ROOT}")
    endif()
endmacro()

# What this build does with the outcome: without LibTorch everything that needs it is left out, and
# `detente doctor` reads generated/launch/torch_source.h either way.
macro(detente_find_torch_for_this_build)
    set(DETENTE_TORCH_FOUND FALSE)
    if(DETENTE_TORCH)
        detente_find_torch()
    endif()
    if(DETENTE_TORCH AND NOT DETENTE_TORCH_FOUND)
        message(WARNING "No LibTorch found: model libraries and examples are left out. Looked in "
            "CMAKE_PREFIX_PATH and Torch_DIR, for an installed Python torch, and in "
            "${PROJECT_SOURCE_DIR}/build/libtorch. To get it run scripts/build, or\n"
            "  python3 -m pip install --target ${PROJECT_SOURCE_DIR}/build/libtorch --no-deps "
            "torch==2.13.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85\n"
            "and configure again, or pass -DCMAKE_PREFIX_PATH=/path/to/libtorch, or say that you "
            "do not want it with -DDETENTE_TORCH=OFF.")
        set(DETENTE_TORCH OFF)
    endif()
    configure_file("${PROJECT_SOURCE_DIR}/cmake/torch_source.h.in"
        "${PROJECT_BINARY_DIR}/generated/launch/torch_source.h" @ONLY)
endmacro()
