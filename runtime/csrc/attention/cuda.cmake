# Builds the CUDA operators, libpolc_ops_cuda, where a CUDA compiler is found, and installs them into polc_runtime:
# one library for PyTorch and ONNX Runtime.
#
#     POLC_CUDA                AUTO: where nvcc works (default); ON: or else fail; OFF: never
#     POLC_CUDA_ARCHITECTURES  80-real;90 by default: code for 8.0 and 9.0, and PTX that newer devices translate
#
# The CUDA runtime is linked statically: nothing but the driver is needed, and that only when an operator runs.
set(POLC_CUDA AUTO CACHE STRING "CUDA operators: AUTO (where nvcc works), ON (or else fail) or OFF")
set_property(CACHE POLC_CUDA PROPERTY STRINGS AUTO ON OFF)
set(POLC_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "Devices that the CUDA operators are compiled for")

set(polc_cuda_missing "")
if(POLC_CUDA STREQUAL "AUTO" OR POLC_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  set(polc_cuda_missing "no CUDA compiler works here (set CUDACXX to nvcc)")
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    set(polc_cuda_missing "")
    if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 11.8)
      set(polc_cuda_missing "nvcc is ${CMAKE_CUDA_COMPILER_VERSION}, and must be 11.8 or newer")
    endif()
  endif()
endif()

if(NOT POLC_CUDA STREQUAL "AUTO" AND NOT POLC_CUDA)
  message(STATUS "polc: built without CUDA operators: POLC_CUDA=${POLC_CUDA}")
elseif(polc_cuda_missing AND POLC_CUDA STREQUAL "AUTO")
  message(STATUS "polc: built without CUDA operators: ${polc_cuda_missing}")
elseif(polc_cuda_missing)
  message(FATAL_ERROR "POLC_CUDA=${POLC_CUDA}, but ${polc_cuda_missing}; or set POLC_CUDA=OFF")
else()
  # The kernels, which every library of CUDA operators holds.
  find_package(CUDAToolkit REQUIRED)
  add_library(polc_na2d_cuda OBJECT ${CMAKE_CURRENT_LIST_DIR}/na2d_cuda.cu)
  set_target_properties(polc_na2d_cuda PROPERTIES
    CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_ARCHITECTURES "${POLC_CUDA_ARCHITECTURES}"
    CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)

  # Makes a library of wrappers around them, which shows nothing but its own interface.
  function(polc_add_cuda_library name)
    add_library(${name} MODULE $<TARGET_OBJECTS:polc_na2d_cuda> ${ARGN})
    set_target_properties(${name} PROPERTIES
      PREFIX lib CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_VISIBILITY_PRESET hidden)
    target_link_libraries(${name} PRIVATE CUDA::cudart_static)
    if(UNIX AND NOT APPLE)  # a host's own CUDA runtime and this one must not take each other's symbols
      target_link_options(${name} PRIVATE "LINKER:--exclude-libs,ALL")
    endif()
    install(TARGETS ${name} LIBRARY DESTINATION polc_runtime)
  endfunction()

  polc_add_cuda_library(polc_ops_cuda ${CMAKE_CURRENT_LIST_DIR}/cuda_api.cc ${CMAKE_CURRENT_LIST_DIR}/ort_cuda_op.cc)
  message(STATUS "polc: CUDA operators for ${POLC_CUDA_ARCHITECTURES}")
endif()
