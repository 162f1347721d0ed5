# detente_add_model(name sources...): a model library, lib<name>.so, that a job file names. The same
# function in this tree and, by find_package(Detente), in a project of your own. Everything but
# detente_engine_entry is hidden, so that several model libraries live in one process.
function(detente_add_model name)
    add_library(${name} MODULE ${ARGN})
    target_link_libraries(${name} PRIVATE Detente::model)
    target_compile_features(${name} PRIVATE cxx_std_20)
    target_link_options(${name} PRIVATE -Wl,--exclude-libs,ALL -Wl,--no-undefined)
    set_target_properties(${name} PROPERTIES
        PREFIX "lib" SUFFIX ".so" CXX_EXTENSIONS OFF
        CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON
        INSTALL_RPATH "${DETENTE_TORCH_LIB}")  # LibTorch stays where it is
endfunction()
