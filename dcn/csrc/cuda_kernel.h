// The interface of the CUDA kernels. No PyTorch here: nvcc reads every header once for each architecture.
#pragma once
#include <cuda_runtime_api.h>

#include "problem.h"

namespace dcn {

// Everything a kernel needs besides pointers. Indices of elements are 64-bit; counts of threads per launch stay below 2^31.
struct CudaSizes {
  int channels, height, width, kernel_h, kernel_w, out_h, out_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, deform_groups;
  int64_t first, pixels;  // of the chunk, counted over the full batch
  __host__ __device__ int points() const { return kernel_h * kernel_w; }
  __host__ __device__ int group_channels() const { return channels / deform_groups; }
};

constexpr int kThreads = 256;  // of a block

// One chunk of pixels. Memory of the device, contiguous; the input is channels-last.
struct CudaChunk {
  CudaSizes sizes;
  int pack;  // numbers per access: a power of two, at most 16 bytes
  Type type, offset_type, mask_type;  // types of offset and mask: `type`, or f32 next to 16-bit numbers
  const void *input, *offset, *mask;  // mask: null without one

  int64_t threads() const { return sizes.pixels * sizes.points() * sizes.deform_groups; }
  int64_t blocks() const { return (threads() + kThreads - 1) / kThreads; }  // must be below 2^31
};

// Gradients to compute; null: not wanted.
struct CudaGradients {
  void* input;                // added to, channels-last: sums in float (double for double), or fixed-point numbers (int64)
  const double* fixed_scale;  // units of one of the fixed-point numbers; null: floating-point sums
  void *offset, *mask;        // of the types of offset and mask
};

// columns[pixel][point][channel] = mask * sample
void cuda_sample(const CudaChunk& chunk, void* columns, cudaStream_t stream);
// The gradients of input, offset and mask from that of the columns.
void cuda_spread(const CudaChunk& chunk, const void* grad_columns, const CudaGradients& gradients, cudaStream_t stream);

}  // namespace dcn
