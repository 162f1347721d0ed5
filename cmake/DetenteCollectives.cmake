# What modules of collectives need: CUDA's headers with NCCL's (the libraries are found at run time),
# Open MPI, MPICH. None is required; what is missing is said once.
#   detente_nccl_headers, DETENTE_CUDA_LIB   PkgConfig::openmpi   PkgConfig::mpich
macro(detente_find_collective_libraries)
    set(_detente_cuda_roots "${CUDAToolkit_ROOT}" "$ENV{CUDA_HOME}" "$ENV{CUDA_PATH}"
        /usr/local/cuda)
    find_path(DETENTE_CUDA_INCLUDE cuda_runtime_api.h
        HINTS ${_detente_cuda_roots} PATH_SUFFIXES include)
    find_path(DETENTE_NCCL_INCLUDE nccl.h
        HINTS ${_detente_cuda_roots} PATH_SUFFIXES include)
    find_library(DETENTE_CUDART cudart HINTS ${_detente_cuda_roots} PATH_SUFFIXES lib64 lib)
    mark_as_advanced(DETENTE_CUDA_INCLUDE DETENTE_NCCL_INCLUDE DETENTE_CUDART)
    unset(_detente_cuda_roots)
    if(DETENTE_CUDA_INCLUDE AND DETENTE_NCCL_INCLUDE)
        add_library(detente_nccl_headers INTERFACE)
        target_include_directories(detente_nccl_headers SYSTEM INTERFACE
            "${DETENTE_CUDA_INCLUDE}" "${DETENTE_NCCL_INCLUDE}")
        get_filename_component(DETENTE_CUDA_LIB "${DETENTE_CUDART}" DIRECTORY)
    else()
        message(STATUS "No CUDA with NCCL: collectives over NCCL are left out")
    endif()
    pkg_check_modules(openmpi QUIET IMPORTED_TARGET ompi-c)
    pkg_check_modules(mpich QUIET IMPORTED_TARGET mpich)
    foreach(_detente_mpi openmpi mpich)
        if(NOT ${_detente_mpi}_FOUND)
            message(STATUS "No lib${_detente_mpi}-dev: collectives over ${_detente_mpi} are left out")
        endif()
    endforeach()
    unset(_detente_mpi)
endmacro()
