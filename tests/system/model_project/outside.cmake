# Installs Détente into a folder of its own, takes the project that README.md shows under "Write
# your own model" out of its text, runs the commands that stand there, outside the tree and against
# that installation alone, and looks at what they leave.
# Needs: README, BUILD, OUTSIDE (an absolute path to work in), LOADER, GENERATOR, COMPILER, LAUNCHER;
# OPEN_CHECKPOINT and PYTHON (may be empty) to open what was trained in Python.
function(step)
    execute_process(COMMAND ${ARGN} RESULT_VARIABLE code OUTPUT_VARIABLE output
        ERROR_VARIABLE output)
    if(NOT code EQUAL 0)
        string(JOIN " " command ${ARGN})
        message(FATAL_ERROR "${command}: exit code ${code}\n${output}")
    endif()
    set(output "${output}" PARENT_SCOPE)
endfunction()

# The next block of the README that is fenced as ```LANGUAGE; `rest` moves on behind it.
function(take_block language into)
    string(FIND "${rest}" "\n```${language}\n" begin)
    if(begin EQUAL -1)
        message(FATAL_ERROR "${README}: expected a block of '${language}' here:\n${rest}")
    endif()
    string(LENGTH "\n```${language}\n" fence)
    math(EXPR begin "${begin} + ${fence}")
    string(SUBSTRING "${rest}" ${begin} -1 rest)
    string(FIND "${rest}" "\n```\n" end)
    math(EXPR end "${end} + 1")
    string(SUBSTRING "${rest}" 0 ${end} block)
    math(EXPR end "${end} + 4")
    string(SUBSTRING "${rest}" ${end} -1 rest)
    set(rest "${rest}" PARENT_SCOPE)
    set(${into} "${block}" PARENT_SCOPE)
endfunction()

file(REMOVE_RECURSE "${OUTSIDE}")
set(project "${OUTSIDE}/project")
set(prefix "${OUTSIDE}/prefix")
file(READ "${README}" rest)
string(FIND "${rest}" "\n## Write your own model" section)
string(SUBSTRING "${rest}" ${section} -1 rest)
take_block(cmake lines)
file(WRITE "${project}/CMakeLists.txt" "${lines}")
take_block(cpp model)
file(WRITE "${project}/flowers.cpp" "${model}")
take_block(toml job)
file(WRITE "${project}/flowers.toml" "${job}")
take_block("" commands)
string(REPLACE "~/detente" "${prefix}" commands "${commands}")
string(REGEX MATCH "^(cmake [^\n]*)\n([^\n]*/bin/detente run flowers.toml)\n$" matched "${commands}")
if(NOT matched)
    message(FATAL_ERROR "${README}: expected one line that builds and one that runs:\n${commands}")
endif()
set(build_line "${CMAKE_MATCH_1}")
set(run_line "${CMAKE_MATCH_2}")

# What the README leaves to the user's machine is as this build has it.
get_filename_component(cmake_folder "${CMAKE_COMMAND}" DIRECTORY)
set(ENV{PATH} "${cmake_folder}:$ENV{PATH}")
set(ENV{CXX} "${COMPILER}")
set(ENV{CMAKE_GENERATOR} "${GENERATOR}")
set(ENV{CMAKE_CXX_COMPILER_LAUNCHER} "${LAUNCHER}")
set(in_project "${CMAKE_COMMAND}" -E chdir "${project}" sh -c)
# The development files are enough to build with.
step("${CMAKE_COMMAND}" --install "${BUILD}" --component development --prefix "${prefix}")
step(${in_project} "${build_line}")
step("${LOADER}" "${project}/build/libflowers.so")
if(NOT output MATCHES "^model Flowers: species\\(loss [0-9.]+\\) large\\(loss [0-9.]+\\) height\\(loss [0-9.]+\\), 8 tensors")
    message(FATAL_ERROR "the loaded model says: ${output}")
endif()
message(STATUS "${output}")

# With all of it installed the model trains, and learns what the README made up.
step("${CMAKE_COMMAND}" --install "${BUILD}" --prefix "${prefix}")
step(${in_project} "${run_line}")
file(READ "${project}/runs/latest/summary.json" summary)
string(JSON failed GET "${summary}" failed)
string(JSON lost GET "${summary}" updates lost)
string(JSON samples GET "${summary}" samples)
if(failed OR NOT lost EQUAL 0 OR NOT samples EQUAL 40000)  # 20 data epochs of 2,000
    message(FATAL_ERROR "the run of flowers.toml says: ${summary}")
endif()
foreach(task species large)
    string(JSON score GET "${summary}" tasks ${task} accuracy)
    if(score LESS 0.8)  # guessing: .33 and .5
        message(FATAL_ERROR "task ${task} has not been learnt: ${score}\n${output}")
    endif()
endforeach()
string(JSON error GET "${summary}" tasks height loss)
if(error GREATER 0.3)  # the mean of all heights as every answer: .33
    message(FATAL_ERROR "task height has not been learnt: ${error}\n${output}")
endif()
if(PYTHON)
    step("${PYTHON}" -B "${OPEN_CHECKPOINT}" "${project}/runs/latest/best/model.safetensors"
        trunk.weight=16x4 trunk.bias=16 heads.species.weight=3x16 heads.species.bias=3
        heads.large.weight=2x16 heads.large.bias=2 heads.height.weight=1x16 heads.height.bias=1)
    message(STATUS "${output}")
else()
    message(STATUS "its checkpoint was not opened in Python: python3 is not there")
endif()

# The installed program finds the installed example, and that its LibTorch.
set(data /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz)
if(EXISTS ${data})
    get_filename_component(tree "${README}" DIRECTORY)
    step("${prefix}/bin/detente" run "${tree}/examples/multifashion/multifashion.toml" --dry-run)
else()
    message(STATUS "the installed example was not tried: ${data} is not there")
endif()
file(REMOVE_RECURSE "${OUTSIDE}")
