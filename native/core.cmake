# The sources of the core and their flags, for the Python module (../CMakeLists.txt) and the check program (tests/).
# Nothing here depends on the processor that builds: each kernel file has its own flags and is chosen at run time.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
find_package(Threads REQUIRED)

set(core_include ${CMAKE_CURRENT_LIST_DIR}/src)
set(core_sources
  attention.cpp
  by_input.cpp
  cpu.cpp
  experts.cpp
  feed_forward.cpp
  head.cpp
  head_weights.cpp
  kernels.cpp
  kernels_scalar.cpp
  kv_cache.cpp
  limits.cpp
  lines.cpp
  memory.cpp
  minhash.cpp
  model.cpp
  gguf.cpp
  packing.cpp
  sampling.cpp
  tensor_file.cpp
  thread_pool.cpp
  weights.cpp
  words.cpp)

# -ffp-contract=off: a fused multiply-add happens only where the code says so, or the kernels would differ in bits.
set(core_options -Wall -Wextra -ffp-contract=off -fno-math-errno -fno-trapping-math)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  set(avx2 -mavx2 -mfma -mf16c)
  set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mprefer-vector-width=512)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC's own AVX-512 intrinsics start from a variable that is not set (GCC bug 105593, mended in 13).
    list(APPEND avx512 -Wno-maybe-uninitialized -Wno-uninitialized)
  endif()
  list(APPEND core_sources kernels_avx2.cpp kernels_avxvnni.cpp kernels_avx512vnni.cpp kernels_avx512vbmi.cpp)
  set_source_files_properties(${core_include}/kernels_avx2.cpp PROPERTIES COMPILE_OPTIONS "${avx2}")
  set_source_files_properties(${core_include}/kernels_avxvnni.cpp PROPERTIES COMPILE_OPTIONS "${avx2};-mavxvnni")
  set_source_files_properties(${core_include}/kernels_avx512vnni.cpp PROPERTIES COMPILE_OPTIONS "${avx512}")
  set_source_files_properties(${core_include}/kernels_avx512vbmi.cpp PROPERTIES COMPILE_OPTIONS "${avx512};-mavx512vbmi")
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
  list(APPEND core_sources kernels_neon.cpp)
  set_source_files_properties(
    ${core_include}/kernels_neon.cpp PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod")
endif()

list(TRANSFORM core_sources PREPEND ${core_include}/)
