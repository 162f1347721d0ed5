# Where LibTorch is looked for, in which order, and what is passed over: with folders that only look
# like one. Needs: MODULES (the project's cmake folder), PROJECT, WORK (a folder to work in).
file(REMOVE_RECURSE "${WORK}")

include("${PROJECT}/make_torch.cmake")

# Configures with the given arguments; `expected` is a pattern of what it must print.
set(number 0)
function(expect expected)
    math(EXPR number "${number} + 1")
    set(number ${number} PARENT_SCOPE)
    execute_process(COMMAND "${CMAKE_COMMAND}" -E env --unset=CMAKE_PREFIX_PATH --unset=Torch_DIR
        "PYTHONPATH=${WORK}/python" PYTHONNOUSERSITE=1
        "${CMAKE_COMMAND}" -S "${WORK}/project" -B "${WORK}/build${number}" "-DMODULES=${MODULES}"
        ${ARGN}
        RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(NOT code EQUAL 0 OR NOT output MATCHES "${expected}")
        message(FATAL_ERROR "case ${number} (${ARGN}): expected \"${expected}\", found:\n${output}")
    endif()
endfunction()

file(COPY "${PROJECT}/CMakeLists.txt" DESTINATION "${WORK}/project")
make_torch("${WORK}/own" 2.5 1)
make_torch("${WORK}/old" 1.13 1)
make_torch("${WORK}/old_abi" 2.5 0)
make_torch("${WORK}/project/build/libtorch/torch" 2.7 1)

# A Python torch that is there but cannot be imported, as one without its CUDA libraries.
make_torch("${WORK}/python/torch" 2.6 1)
file(WRITE "${WORK}/python/torch/__init__.py" "raise ImportError('must not be imported')\n")

expect("found=TRUE version=2.5.0 source=CMAKE_PREFIX_PATH" "-DCMAKE_PREFIX_PATH=${WORK}/own")
expect("found=TRUE version=2.5.0 source=CMAKE_PREFIX_PATH"
    "-DTorch_DIR=${WORK}/own/share/cmake/Torch")
expect("found=TRUE version=2.6.0 source=Python torch")
expect("1.13.0' .*passed over.*found=TRUE version=2.6.0" "-DCMAKE_PREFIX_PATH=${WORK}/old")
expect("old C\\+\\+ ABI.*found=TRUE version=2.6.0" "-DCMAKE_PREFIX_PATH=${WORK}/old_abi")
expect("found=TRUE version=2.7.0 source=build/libtorch" -DDETENTE_PYTHON=/nowhere/python3)
file(REMOVE_RECURSE "${WORK}/project/build")
expect("found=FALSE version= " -DDETENTE_PYTHON=/nowhere/python3)
file(REMOVE_RECURSE "${WORK}")
