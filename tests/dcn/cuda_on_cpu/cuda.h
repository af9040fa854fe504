// Runs CUDA kernels on a CPU: `DCN_LAUNCH` calls the kernel once per thread, in a loop. Threads of dcn/csrc/cuda_kernel.cu neither share
// memory nor wait for each other, so a loop in any order is a valid execution; the tests shuffle it.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <random>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __launch_bounds__(...)
#define __CUDA_ARCH__ 900  // the path with 16-byte atomic operations; packs of one number take the other path

struct dim3 {
  unsigned x = 0;
};
inline dim3 blockIdx, threadIdx;

struct alignas(16) float4 {
  float x, y, z, w;
};
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

template <class T>
void atomicAdd(T* to, T term) {
  *to += term;
}
inline void atomicAdd(float4* to, float4 term) { to->x += term.x, to->y += term.y, to->z += term.z, to->w += term.w; }

namespace cuda_on_cpu {

inline int64_t order = 0;       // 0: threads in their order; else the seed of a shuffle
inline int64_t launches = 0;

template <class Kernel, class... Arguments>
void launch(Kernel kernel, unsigned blocks, unsigned threads, Arguments... arguments) {
  ++launches;
  std::vector<int64_t> indices(int64_t(blocks) * threads);
  std::iota(indices.begin(), indices.end(), 0);
  if (order) std::shuffle(indices.begin(), indices.end(), std::mt19937_64(order + launches));
  for (const int64_t index : indices) {
    blockIdx.x = unsigned(index / threads), threadIdx.x = unsigned(index % threads);
    kernel(arguments...);
  }
}

}  // namespace cuda_on_cpu

#define DCN_LAUNCH(kernel, blocks, threads, stream, ...) cuda_on_cpu::launch(kernel, blocks, threads, __VA_ARGS__)

// What the source takes from CUDA and c10/cuda.
using cudaStream_t = void*;
#define C10_CUDA_KERNEL_LAUNCH_CHECK() static_cast<void>(0)
namespace c10::cuda {
inline cudaStream_t getCurrentCUDAStream() { return nullptr; }
struct CUDAGuard {
  template <class Device>
  explicit CUDAGuard(Device) {}
};
}  // namespace c10::cuda
