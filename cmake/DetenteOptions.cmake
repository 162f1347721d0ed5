# Compiler options every target of ours shares, as one interface target.
add_library(detente_options INTERFACE)
# Bits: no contraction to FMA unless the code says so, no fast-math. sqrt may set no errno, or Adam
# stays scalar.
target_compile_options(detente_options INTERFACE
    # GCC 12 warns of overlaps in std::string's own code (its bug 105329).
    -Wall -Wextra -Wno-restrict -ffp-contract=off -fno-math-errno -fno-trapping-math
    $<$<BOOL:${DETENTE_WERROR}>:-Werror>)
target_compile_definitions(detente_options INTERFACE
    BOOST_ASIO_NO_DEPRECATED BOOST_ASIO_SEPARATE_COMPILATION FLATBUFFERS_LOCALE_INDEPENDENT=1)
target_include_directories(detente_options INTERFACE
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/generated>
    $<INSTALL_INTERFACE:include/detente>)
# For what is compiled more often than it is waited for: tests, the command line, the coordinator.
# Half of such a file's time goes into optimising what no run would notice.
add_library(detente_quick_build INTERFACE)
target_compile_options(detente_quick_build INTERFACE $<$<CONFIG:Release>:-O1>)
if(DETENTE_SANITIZE STREQUAL "address")
    target_compile_options(detente_options INTERFACE
        -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
    target_link_options(detente_options INTERFACE -fsanitize=address,undefined)
elseif(DETENTE_SANITIZE STREQUAL "thread")
    # -Wno-tsan: Boost.Asio has fences of its own, which ThreadSanitizer does not follow.
    target_compile_options(detente_options INTERFACE
        -fsanitize=thread -fno-omit-frame-pointer -Wno-tsan)
    target_link_options(detente_options INTERFACE -fsanitize=thread)
elseif(NOT DETENTE_SANITIZE STREQUAL "")
    message(FATAL_ERROR "DETENTE_SANITIZE is '${DETENTE_SANITIZE}'; valid: address, thread, or empty")
endif()

# One static library per folder: every .cpp below the given directories.
function(detente_library name)
    cmake_parse_arguments(ARG "" "" "DIRS;LINK" ${ARGN})
    set(sources)
    foreach(dir IN LISTS ARG_DIRS)
        file(GLOB found CONFIGURE_DEPENDS "${dir}/*.cpp")
        list(APPEND sources ${found})
    endforeach()
    if(NOT sources)
        add_library(${name} INTERFACE)
        target_link_libraries(${name} INTERFACE detente_options ${ARG_LINK})
        return()
    endif()
    add_library(${name} STATIC ${sources})
    target_link_libraries(${name} PUBLIC detente_options ${ARG_LINK})
endfunction()

# Compiles sources of `library` (patterns) as one, where the headers that they share cost more than
# they do. Each is checked by clang-tidy by itself all the same. Where `library` is made.
function(detente_compile_together library name)
    file(GLOB found CONFIGURE_DEPENDS ${ARGN})
    set_source_files_properties(${found} PROPERTIES UNITY_GROUP ${name})
    set_target_properties(${library} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
endfunction()

# Has `target` read `header` as precompiled: once, instead of once in each of its sources. REUSE names
# a target of the same compiler options, whose precompiled header does.
function(detente_precompiled target)
    cmake_parse_arguments(ARG "" "HEADER;REUSE" "" ${ARGN})
    if(NOT DETENTE_PRECOMPILED_HEADERS)
        return()
    elseif(ARG_REUSE)
        target_precompile_headers(${target} REUSE_FROM ${ARG_REUSE})
    else()
        target_precompile_headers(${target} PRIVATE "${PROJECT_SOURCE_DIR}/${ARG_HEADER}")
    endif()
    # ccache needs the first, to see what a precompiled header was made of. The others: GCC 12 warns
    # of impossible sizes in std::string's own code (its bug 105329), once that is precompiled.
    target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU>:
        -fpch-preprocess -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread>)
endfunction()

# Gives a program the fast allocator, where it is found (DetenteDependencies.cmake).
function(detente_fast_allocator program)
    if(DETENTE_TCMALLOC AND NOT DETENTE_SANITIZE)
        target_link_options(${program} PRIVATE
            "LINKER:--push-state,--no-as-needed,${DETENTE_TCMALLOC},--pop-state")
    endif()
endfunction()
