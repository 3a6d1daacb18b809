# Builds the TensorRT plugin, libpolc_trt_plugin, where the CUDA operators are built and TensorRT's headers are found, and
# installs it into polc_runtime.
#
#     POLC_TENSORRT          AUTO: where both are there (default); ON: or else fail; OFF: never
#     TENSORRT_INCLUDE_DIR   the folder of NvInferRuntime.h (a CMake or an environment variable), else the system's
#
# A plugin built with the headers of TensorRT 8 serves TensorRT 8 alone, one built with those of 10 or later serves
# 10 and later. Nothing of TensorRT is linked.
set(POLC_TENSORRT AUTO CACHE STRING "TensorRT plugin: AUTO (where it can be built), ON (or else fail) or OFF")
set_property(CACHE POLC_TENSORRT PROPERTY STRINGS AUTO ON OFF)

if(NOT TENSORRT_INCLUDE_DIR AND DEFINED ENV{TENSORRT_INCLUDE_DIR})
  set(TENSORRT_INCLUDE_DIR $ENV{TENSORRT_INCLUDE_DIR})
endif()
if(TENSORRT_INCLUDE_DIR AND NOT EXISTS "${TENSORRT_INCLUDE_DIR}/NvInferRuntime.h")
  message(FATAL_ERROR "TENSORRT_INCLUDE_DIR=${TENSORRT_INCLUDE_DIR} has no NvInferRuntime.h")
endif()
find_path(TENSORRT_INCLUDE_DIR NvInferRuntime.h)

set(polc_tensorrt_missing "")
if(NOT TARGET polc_na2d_cuda)
  set(polc_tensorrt_missing "it needs the CUDA operators, which are not built")
elseif(NOT TENSORRT_INCLUDE_DIR)
  set(polc_tensorrt_missing "no TensorRT headers (set TENSORRT_INCLUDE_DIR)")
endif()

if(NOT POLC_TENSORRT STREQUAL "AUTO" AND NOT POLC_TENSORRT)
  message(STATUS "polc: built without the TensorRT plugin: POLC_TENSORRT=${POLC_TENSORRT}")
elseif(polc_tensorrt_missing AND POLC_TENSORRT STREQUAL "AUTO")
  message(STATUS "polc: built without the TensorRT plugin: ${polc_tensorrt_missing}")
elseif(polc_tensorrt_missing)
  message(FATAL_ERROR "POLC_TENSORRT=${POLC_TENSORRT}, but ${polc_tensorrt_missing}; or set POLC_TENSORRT=OFF")
else()
  polc_add_cuda_library(polc_trt_plugin ${CMAKE_CURRENT_LIST_DIR}/trt_plugin.cc)
  target_include_directories(polc_trt_plugin SYSTEM PRIVATE ${TENSORRT_INCLUDE_DIR} ${CUDAToolkit_INCLUDE_DIRS})
  message(STATUS "polc: TensorRT plugin with the headers in ${TENSORRT_INCLUDE_DIR}")
endif()
