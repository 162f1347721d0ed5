# Installs Détente into a folder of its own, configures and builds the project next to this file
# outside the tree against that alone, and loads the library it makes.
# Needs: BUILD, PROJECT, OUTSIDE (an absolute path to work in), LOADER, GENERATOR, COMPILER, LAUNCHER.
function(step)
    execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE output
        ERROR_VARIABLE output)
    if(NOT code EQUAL 0)
        string(JOIN " " command ${ARGN})
        message(FATAL_ERROR "${command}: exit code ${code}\n${output}")
    endif()
    set(output "${output}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE "${OUTSIDE}")
file(COPY "${PROJECT}/CMakeLists.txt" "${PROJECT}/flowers.cpp" DESTINATION "${OUTSIDE}/project")
step("${CMAKE_COMMAND}" --install "${BUILD}" --component development --prefix "${OUTSIDE}/prefix")
step("${CMAKE_COMMAND}" -S "${OUTSIDE}/project" -B "${OUTSIDE}/build" -G "${GENERATOR}"
    "-DCMAKE_CXX_COMPILER=${COMPILER}" "-DCMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}"
    "-DCMAKE_PREFIX_PATH=${OUTSIDE}/prefix" -DCMAKE_BUILD_TYPE=Release)
step("${CMAKE_COMMAND}" --build "${OUTSIDE}/build")
step("${LOADER}" "${OUTSIDE}/build/libflowers.so")
if(NOT output MATCHES "^model Flowers: species\\(loss [0-9.]+\\) large\\(loss [0-9.]+\\) red\\(loss [0-9.]+\\), 8 tensors")
    message(FATAL_ERROR "the loaded model says: ${output}")
endif()
message(STATUS "${output}")

# The installed program finds the installed example, and that its LibTorch.
set(data /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz)
if(EXISTS ${data})
    step("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${OUTSIDE}/prefix")
    get_filename_component(tree "${PROJECT}/../../.." ABSOLUTE)
    step("${OUTSIDE}/prefix/bin/detente" run "${tree}/examples/multifashion/multifashion.toml" --dry-run)
else()
    message(STATUS "the installed example was not tried: ${data} is not there")
endif()
file(REMOVE_RECURSE "${OUTSIDE}")
