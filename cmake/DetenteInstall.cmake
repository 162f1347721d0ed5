# cmake --install: the program (component program) and what a model in a project of its own needs
# (component development): find_package(Detente) and detente_add_model.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS detente RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT program)
foreach(module detente_nccl detente_openmpi detente_mpich)
    if(TARGET ${module})
        install(TARGETS ${module} LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/detente
            COMPONENT program)
    endif()
endforeach()

if(DETENTE_TORCH)
    install(TARGETS detente_model ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
    install(TARGETS multifashion LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/detente
        COMPONENT program)
    install(FILES worker/torch/include/detente/model.h
        DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/detente COMPONENT development)
    # The headers that model.h includes, below a folder of their own.
    foreach(header common/ids.h common/model_description.h common/random.h common/result.h
            worker/engine.h worker/torch/device.h worker/torch/gates.h worker/torch/model.h
            worker/torch/representation.h worker/torch/task.h)
        get_filename_component(folder "${header}" DIRECTORY)
        install(FILES "${header}"
            DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/detente/internal/${folder}"
            COMPONENT development)
    endforeach()
    set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Detente)
    configure_package_config_file(cmake/DetenteConfig.cmake.in
        "${PROJECT_BINARY_DIR}/DetenteConfig.cmake" INSTALL_DESTINATION ${package_dir}
        PATH_VARS CMAKE_INSTALL_INCLUDEDIR CMAKE_INSTALL_LIBDIR)
    write_basic_package_version_file("${PROJECT_BINARY_DIR}/DetenteConfigVersion.cmake"
        COMPATIBILITY SameMinorVersion)
    install(FILES "${PROJECT_BINARY_DIR}/DetenteConfig.cmake"
        "${PROJECT_BINARY_DIR}/DetenteConfigVersion.cmake"
        cmake/DetenteTorch.cmake cmake/DetenteAddModel.cmake
        DESTINATION ${package_dir} COMPONENT development)
endif()
