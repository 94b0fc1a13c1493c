# coppice_room(NAME SOURCES ... [LINK rooms/libraries that are part of the room's interface]
#              [PRIVATE_LINK libraries only the room's sources see]
#              [TESTS x_test.cc ...] [TEST_LINK ...])
# One static library per room (target coppice_NAME) and one test binary per room (NAME_test).

set(COPPICE_WARNINGS -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Wno-unused-parameter)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 at -O3 takes the storage of an empty std::optional for an uninitialised read.
  list(APPEND COPPICE_WARNINGS -Wno-maybe-uninitialized)
endif()

add_library(coppice_options INTERFACE)
target_compile_options(coppice_options INTERFACE ${COPPICE_WARNINGS})
# Bit-equality (promise 3) needs every product and sum to be the one that is written: the compiler
# must not fuse a*b+c on its own.
target_compile_options(coppice_options INTERFACE -ffp-contract=off)
if(COPPICE_SANITIZE)
  target_compile_options(coppice_options INTERFACE -fsanitize=${COPPICE_SANITIZE}
    -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(coppice_options INTERFACE -fsanitize=${COPPICE_SANITIZE})
endif()

function(coppice_room NAME)
  cmake_parse_arguments(R "" "" "SOURCES;LINK;PRIVATE_LINK;TESTS;TEST_LINK" ${ARGN})
  set(target coppice_${NAME})
  add_library(${target} STATIC ${R_SOURCES})
  target_include_directories(${target} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/src>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/coppice/src>)
  target_link_libraries(${target} PUBLIC ${R_LINK} PRIVATE ${R_PRIVATE_LINK}
    $<BUILD_INTERFACE:coppice_options>)
  add_library(coppice::${NAME} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${NAME})
  set_property(GLOBAL APPEND PROPERTY COPPICE_ROOMS ${target})
  if(COPPICE_TESTS AND R_TESTS)
    coppice_test(${NAME}_test SOURCES ${R_TESTS} LINK ${target} ${R_TEST_LINK} LABELS unit)
  endif()
endfunction()

# coppice_test(NAME SOURCES ... LINK ... [LABELS unit|e2e]): a GoogleTest binary, one ctest entry.
# Room tests are "unit" and run under every sanitizer; "e2e" ones run in the release build.
function(coppice_test NAME)
  cmake_parse_arguments(T "" "" "SOURCES;LINK;LABELS" ${ARGN})
  find_package(GTest REQUIRED)
  add_executable(${NAME} ${T_SOURCES})
  target_link_libraries(${NAME} PRIVATE ${T_LINK} GTest::gtest_main coppice_options)
  target_compile_definitions(${NAME} PRIVATE
    COPPICE_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data" COPPICE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_precompile_headers(${NAME} PRIVATE <gtest/gtest.h>)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${NAME} PRIVATE -fpch-preprocess)  # lets ccache see through the header
  endif()
  add_test(NAME ${NAME} COMMAND ${NAME})
  set_tests_properties(${NAME} PROPERTIES TIMEOUT 1500 LABELS "${T_LABELS}")
endfunction()
