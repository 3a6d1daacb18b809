# libpolc_ops: the native operators for PyTorch and, where ONNX Runtime's C headers are found, for ONNX Runtime.
#
# The headers are looked for in ORT_INCLUDE_DIR (a CMake or an environment variable), then on the system;
# runtime/csrc/attention/fetch_ort_headers.sh fetches them.

if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  add_library(polc_ops SHARED ${CMAKE_CURRENT_LIST_DIR}/c_api.cc)
  find_package(Threads REQUIRED)
  target_link_libraries(polc_ops PRIVATE Threads::Threads)
  set_target_properties(polc_ops PROPERTIES CXX_VISIBILITY_PRESET hidden)

  if(NOT ORT_INCLUDE_DIR AND DEFINED ENV{ORT_INCLUDE_DIR})
    set(ORT_INCLUDE_DIR $ENV{ORT_INCLUDE_DIR})
  endif()
  if(ORT_INCLUDE_DIR AND NOT EXISTS "${ORT_INCLUDE_DIR}/onnxruntime_c_api.h")
    message(FATAL_ERROR "ORT_INCLUDE_DIR=${ORT_INCLUDE_DIR} has no onnxruntime_c_api.h")
  endif()
  find_path(ORT_INCLUDE_DIR onnxruntime_c_api.h
    PATH_SUFFIXES onnxruntime onnxruntime/core/session)
  if(ORT_INCLUDE_DIR)
    target_sources(polc_ops PRIVATE ${CMAKE_CURRENT_LIST_DIR}/ort_op.cc)
    target_include_directories(polc_ops SYSTEM PRIVATE ${ORT_INCLUDE_DIR})
  else()
    message(WARNING "no ONNX Runtime headers: the native operators will serve PyTorch alone. "
      "Set ORT_INCLUDE_DIR; runtime/csrc/attention/fetch_ort_headers.sh fetches them.")
  endif()
  install(TARGETS polc_ops LIBRARY DESTINATION polc_runtime)
else()
  message(WARNING "the native operators need GCC or Clang, found ${CMAKE_CXX_COMPILER_ID}: left out")
endif()
