# cmake --install: the command, and the rooms as a library for find_package(coppice).
include(CMakePackageConfigHelpers)

get_property(rooms GLOBAL PROPERTY COPPICE_ROOMS)
list(REMOVE_ITEM rooms coppice_train)  # Torch is nobody else's business
install(TARGETS ${rooms} EXPORT coppice_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}/coppice)
install(EXPORT coppice_targets NAMESPACE coppice:: FILE coppice-targets.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/coppice)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/coppice-config.cmake.in
  ${CMAKE_BINARY_DIR}/coppice-config.cmake INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/coppice)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/coppice-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/coppice-config.cmake ${CMAKE_BINARY_DIR}/coppice-config-version.cmake
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/coppice)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/coppice DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
# Rooms include each other as "room/header.h"; installed they keep that form under include/coppice/src.
foreach(room base tensor ops text kv model engine)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/src/${room}
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/coppice/src FILES_MATCHING PATTERN "*.h")
endforeach()
if(EXISTS ${PROJECT_SOURCE_DIR}/models/storefront)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/models/storefront
    DESTINATION ${CMAKE_INSTALL_DATADIR}/coppice/models)
endif()
