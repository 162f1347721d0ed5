# scripts/setup fetches a LibTorch exactly where the build would find none that it can use: in a
# checkout that has only what this takes, with folders that only look like a LibTorch; pip and
# apt-get are played. Needs: ROOT (the framework), PROJECT (this folder), PYTHON, WORK (a folder to
# work in).
cmake_minimum_required(VERSION 3.25)
file(REMOVE_RECURSE "${WORK}")
include("${PROJECT}/make_torch.cmake")

function(write_program path text)
    file(WRITE "${path}" "#!/bin/sh\n${text}\n")
    file(CHMOD "${path}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endfunction()

file(COPY "${ROOT}/scripts/setup" "${ROOT}/scripts/stages.sh"
    DESTINATION "${WORK}/checkout/scripts")
file(COPY "${ROOT}/cmake/DetenteTorch.cmake" "${ROOT}/cmake/find_torch"
    DESTINATION "${WORK}/checkout/cmake")
write_program("${WORK}/bin/apt-get" "exit 0")
write_program("${WORK}/bin/python3" "if [ \"$1 $2\" = '-m pip' ]; then
    while [ $# -gt 0 ] && [ \"$1\" != --target ]; do shift; done
    if [ $# -gt 0 ]; then mkdir -p \"$2\" && cp -R '${WORK}/wheel/torch' \"$2/torch\"; fi
    exit 0
fi
exec '${PYTHON}' \"$@\"")
make_torch("${WORK}/own" 2.5 1)
make_torch("${WORK}/old_abi" 2.5 0)
make_torch("${WORK}/wheel/torch" 2.7 1)
make_torch("${WORK}/python/torch" 1.13 1)
set(fetched "${WORK}/checkout/build/libtorch/torch/lib/libtorch_cpu.so")

# Runs it with these variables set; `expected` is a pattern of all it prints, `fetches` whether a
# LibTorch lies in build/libtorch afterwards. "" stands for nothing.
set(number 0)
function(expect expected fetches)
    math(EXPR number "${number} + 1")
    set(number ${number} PARENT_SCOPE)
    execute_process(COMMAND "${CMAKE_COMMAND}" -E env --unset=CMAKE_PREFIX_PATH --unset=Torch_DIR
        "PATH=${WORK}/bin:$ENV{PATH}" "PYTHONPATH=${WORK}/python" PYTHONNOUSERSITE=1 ${ARGN}
        bash "${WORK}/checkout/scripts/setup"
        RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
    string(LENGTH "${output}" printed)
    set(fits FALSE)
    if(expected STREQUAL "")
        if(printed EQUAL 0)
            set(fits TRUE)
        endif()
    elseif(output MATCHES "${expected}")
        set(fits TRUE)
    endif()
    if(NOT fits OR NOT code EQUAL 0)
        message(FATAL_ERROR "case ${number} (${ARGN}): expected exit code 0 and \"${expected}\", "
            "found ${code} and:\n${output}")
    endif()
    if(fetches AND NOT EXISTS "${fetched}" OR NOT fetches AND EXISTS "${fetched}")
        message(FATAL_ERROR "case ${number} (${ARGN}): fetched, or not, contrary to what it should; "
            "it said:\n${output}")
    endif()
endfunction()

expect("1\\.13\\.0' in [^\n]*passed over.*fetching LibTorch.*set-up done" TRUE)
expect("" TRUE)  # set up: nothing to do, nothing to say
file(REMOVE_RECURSE "${WORK}/checkout/build")
expect("passed over: it is built for the old C\\+\\+ ABI.*1\\.13\\.0'.*fetching LibTorch" TRUE
    "CMAKE_PREFIX_PATH=${WORK}/old_abi")
file(REMOVE_RECURSE "${WORK}/checkout/build")
expect("LibTorch 2\\.5\\.0 \\(CMAKE_PREFIX_PATH or Torch_DIR\\): [^\n]*/own\n.*set-up done" FALSE
    "CMAKE_PREFIX_PATH=${WORK}/own")
# Another LibTorch than the one it was set up for: looked for again.
make_torch("${WORK}/python/torch" 2.6 1)
expect("LibTorch 2\\.6\\.0 \\(Python torch\\): [^\n]*/python/torch\n.*set-up done" FALSE)
file(REMOVE_RECURSE "${WORK}")
