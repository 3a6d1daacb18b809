# Builds the native operators for processors, libpolc_ops, and installs them into polc_runtime: one library for PyTorch and
# ONNX Runtime, of which nothing is needed to build it.
include(CheckCXXSourceCompiles)
check_cxx_source_compiles("
  typedef float Vec __attribute__((vector_size(16)));
  int main(int count, char**) {
    Vec sum = Vec{} + static_cast<float>(count);
  #if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports(\"avx2\")) sum += 1.0f;
  #endif
    return sum[0] > 1.0f;
  }" POLC_VECTOR_EXTENSIONS)

if(POLC_VECTOR_EXTENSIONS)
  # A module: programs load it, nothing links to it. Its name begins with lib on every platform.
  add_library(polc_ops MODULE ${CMAKE_CURRENT_LIST_DIR}/c_api.cc ${CMAKE_CURRENT_LIST_DIR}/ort_op.cc)
  find_package(Threads REQUIRED)
  target_link_libraries(polc_ops PRIVATE Threads::Threads)
  set_target_properties(polc_ops PROPERTIES PREFIX lib CXX_VISIBILITY_PRESET hidden)
  install(TARGETS polc_ops LIBRARY DESTINATION polc_runtime)
else()
  message(WARNING "polc: built without native operators: they need the vector extensions of GCC or Clang, "
    "which ${CMAKE_CXX_COMPILER_ID} does not have")
endif()
