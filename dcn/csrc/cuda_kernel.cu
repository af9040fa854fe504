// CUDA kernels; memory and matrix products are in cuda.cpp. tests/dcn/cuda_on_cpu compiles this file with a C++ compiler and runs the
// kernels on the CPU.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cmath>
#include <type_traits>

#include "cuda_kernel.h"

#ifndef DCN_LAUNCH  // the tests replace it by a loop
#define DCN_LAUNCH(kernel, blocks, threads, stream, ...) kernel<<<blocks, threads, 0, stream>>>(__VA_ARGS__)
#endif

namespace dcn {
namespace {

// Sums in float, or double for double.
template <class T>
struct Sum {
  using type = float;
};
template <>
struct Sum<double> {
  using type = double;
};

// N neighbouring numbers of a memory type, read and written in one access where they are aligned.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T value[N];
};

// One bilinear sample: element of the upper left corner (may be outside), fractions, and which corners are inside.
template <class A>
struct Place {
  int64_t corner[4];
  A down, right;
  bool inside[4];

  __device__ Place(const CudaSizes& s, A y, A x, int64_t sample) {
    // NaN fails the comparison too: no corner is inside.
    const bool near = y > A(-1) && y < A(s.height) && x > A(-1) && x < A(s.width);
    const int top = near ? int(floor(y)) : 0, left = near ? int(floor(x)) : 0;
    down = near ? y - A(top) : A(0);
    right = near ? x - A(left) : A(0);
    for (int i = 0; i < 4; ++i) {
      const int row = top + i / 2, col = left + i % 2;
      inside[i] = near && row >= 0 && row < s.height && col >= 0 && col < s.width;
      corner[i] = inside[i] ? ((sample * s.height + row) * s.width + col) * s.channels : 0;
    }
  }
  __device__ A weight(int i) const { return (i / 2 ? down : 1 - down) * (i % 2 ? right : 1 - right); }
};

// The thread's work: one pixel, kernel point and deformable group. Neighbouring threads are neighbouring groups, then points:
// their channels and columns are adjacent.
template <class T, class O, class A>
struct Item {
  int group, point;
  int64_t pixel, sample, offset_at, mask_at, plane;
  A y, x, mask;

  __device__ Item(const CudaSizes& s, int64_t index, const O* offset, const T* mask_same, const float* mask_float) {
    group = int(index % s.deform_groups);
    point = int(index / s.deform_groups % s.points());
    pixel = index / s.deform_groups / s.points();
    plane = int64_t(s.out_h) * s.out_w;
    sample = (s.first + pixel) / plane;
    const int64_t at = (s.first + pixel) % plane, channel = sample * s.deform_groups * s.points() + int64_t(group) * s.points() + point;
    offset_at = 2 * channel * plane + at;
    mask_at = channel * plane + at;
    y = A(at / s.out_w * s.stride_h - s.pad_h + point / s.kernel_w * s.dilation_h) + A(offset[offset_at]);
    x = A(at % s.out_w * s.stride_w - s.pad_w + point % s.kernel_w * s.dilation_w) + A(offset[offset_at + plane]);
    mask = mask_same ? A(mask_same[mask_at]) : mask_float ? A(mask_float[mask_at]) : A(1);
  }
};

// columns[pixel][point][channel] = mask * sample
template <class T, class O, int N>
__global__ void __launch_bounds__(kThreads)
    sample_columns(CudaSizes s, int64_t count, const T* __restrict__ input, const O* __restrict__ offset, const T* __restrict__ mask_same,
                   const float* __restrict__ mask_float, T* __restrict__ columns) {
  using A = typename Sum<T>::type;
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= count) return;
  const Item<T, O, A> item(s, index, offset, mask_same, mask_float);
  const Place<A> place(s, item.y, item.x, item.sample);
  const int channels = s.group_channels(), start = item.group * channels;
  T* to = columns + (item.pixel * s.points() + item.point) * s.channels + start;
  for (int c = 0; c < channels; c += N) {
    A sum[N] = {};
    for (int i = 0; i < 4; ++i)
      if (place.inside[i]) {
        const auto pack = *reinterpret_cast<const Pack<T, N>*>(input + place.corner[i] + start + c);
        const A weight = place.weight(i);
        for (int j = 0; j < N; ++j) sum[j] += weight * A(pack.value[j]);
      }
    Pack<T, N> result;
    for (int j = 0; j < N; ++j) result.value[j] = T(item.mask * sum[j]);
    *reinterpret_cast<Pack<T, N>*>(to + c) = result;
  }
}

// Where threads add up the gradient of the input. Sums of floating-point numbers depend on the order of the threads. In PyTorch's
// deterministic mode the terms are therefore added as integers: 64-bit fixed-point numbers, `scale` units to one (fixed_scale in cuda.cpp).
template <class A>
struct InputGradient {
  A* sums;                    // null: not wanted, or `fixed` is used
  unsigned long long* fixed;  // null: not wanted, or `sums` is used
  const double* scale;

  template <int N>
  __device__ void add(int64_t at, const A (&terms)[N]) const {
    if (fixed) {
      for (int j = 0; j < N; ++j)
        atomicAdd(fixed + at + j, static_cast<unsigned long long>(llrint(double(terms[j]) * *scale)));  // wraps as int64 does
      return;
    }
    add_floats(at, terms);
  }
  template <int N>
  __device__ void add_floats(int64_t at, const A (&terms)[N]) const {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    constexpr bool wide = N % 4 == 0 && std::is_same_v<A, float>;  // one 16-byte atomic operation instead of four
#else
    constexpr bool wide = false;
#endif
    if constexpr (wide) {
      for (int j = 0; j < N; j += 4)
        atomicAdd(reinterpret_cast<float4*>(sums + at + j), make_float4(terms[j], terms[j + 1], terms[j + 2], terms[j + 3]));
    } else {
      for (int j = 0; j < N; ++j) atomicAdd(sums + at + j, terms[j]);
    }
  }
  __device__ bool wanted() const { return sums || fixed; }
};

// From the gradient of the columns: gradients of offset and mask (only this thread writes them) and of the input (added atomically).
template <class T, class O, class M, int N>
__global__ void __launch_bounds__(kThreads)
    spread_columns(CudaSizes s, int64_t count, const T* __restrict__ input, const O* __restrict__ offset, const T* __restrict__ mask_same,
                   const float* __restrict__ mask_float, const T* __restrict__ grad_columns, InputGradient<typename Sum<T>::type> grad_input,
                   O* __restrict__ grad_offset, M* __restrict__ grad_mask) {
  using A = typename Sum<T>::type;
  const int64_t index = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= count) return;
  const Item<T, O, A> item(s, index, offset, mask_same, mask_float);
  const Place<A> place(s, item.y, item.x, item.sample);
  const int channels = s.group_channels(), start = item.group * channels;
  const T* from = grad_columns + (item.pixel * s.points() + item.point) * s.channels + start;
  A dots[4] = {};
  for (int c = 0; c < channels; c += N) {
    const auto grad = *reinterpret_cast<const Pack<T, N>*>(from + c);
    for (int i = 0; i < 4; ++i)
      if (place.inside[i]) {
        const auto pack = *reinterpret_cast<const Pack<T, N>*>(input + place.corner[i] + start + c);
        const A weight = item.mask * place.weight(i);
        A terms[N];
        for (int j = 0; j < N; ++j) {
          dots[i] += A(grad.value[j]) * A(pack.value[j]);
          terms[j] = weight * A(grad.value[j]);
        }
        if (grad_input.wanted()) grad_input.add(place.corner[i] + start + c, terms);
      }
  }
  if (!grad_offset) return;
  const A up = (1 - place.right) * dots[0] + place.right * dots[1], low = (1 - place.right) * dots[2] + place.right * dots[3];
  const A left = (1 - place.down) * dots[0] + place.down * dots[2], right = (1 - place.down) * dots[1] + place.down * dots[3];
  grad_offset[item.offset_at] = O(item.mask * (low - up));
  grad_offset[item.offset_at + item.plane] = O(item.mask * (right - left));
  if (grad_mask) grad_mask[item.mask_at] = M((1 - place.down) * up + place.down * low);
}

// ---- choice of the types

template <class T>
T* as(void* pointer) {
  return static_cast<T*>(pointer);
}
template <class T>
const T* as(const void* pointer) {
  return static_cast<const T*>(pointer);
}

// Calls body with integral_constant of the pack's size.
template <class T, class Body>
void with_pack(int pack, const Body& body) {
  if constexpr (sizeof(T) == 2)
    if (pack == 8) return body(std::integral_constant<int, 8>());
  if constexpr (sizeof(T) <= 4)
    if (pack == 4) return body(std::integral_constant<int, 4>());
  if (pack == 2) return body(std::integral_constant<int, 2>());
  body(std::integral_constant<int, 1>());
}

// Calls body with a null pointer of type T, or of float where a 16-bit T has a float32 offset or mask.
template <class T, class Body>
void with_wider(Type type, const Body& body) {
  if constexpr (sizeof(T) == 2)
    if (type == Type::f32) return body(static_cast<float*>(nullptr));
  body(static_cast<T*>(nullptr));
}

// Calls body with null pointers of the memory types of input and offset, and integral_constant of the pack's size.
template <class Body>
void with_types(const CudaChunk& chunk, const Body& body) {
  const auto choose = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    with_pack<T>(chunk.pack, [&](auto pack) {
      with_wider<T>(chunk.offset_type, [&](auto* offset_type) { body(type, offset_type, pack); });
    });
  };
  switch (chunk.type) {
    case Type::f32: return choose(static_cast<float*>(nullptr));
    case Type::f64: return choose(static_cast<double*>(nullptr));
    case Type::f16: return choose(static_cast<c10::Half*>(nullptr));
    case Type::bf16: return choose(static_cast<c10::BFloat16*>(nullptr));
  }
}

// The mask as a pointer to T, or to float: the other one is null.
template <class T>
struct Mask {
  const T* same;
  const float* wide;

  explicit Mask(const CudaChunk& chunk)
      : same(chunk.mask_type == chunk.type ? as<T>(chunk.mask) : nullptr), wide(chunk.mask_type == chunk.type ? nullptr : as<float>(chunk.mask)) {}
};

}  // namespace

void cuda_sample(const CudaChunk& chunk, void* columns, cudaStream_t stream) {
  with_types(chunk, [&](auto* type, auto* offset_type, auto pack) {
    using T = std::remove_pointer_t<decltype(type)>;
    using O = std::remove_pointer_t<decltype(offset_type)>;
    const Mask<T> mask(chunk);
    const auto kernel = &sample_columns<T, O, decltype(pack)::value>;
    DCN_LAUNCH(kernel, unsigned(chunk.blocks()), kThreads, stream, chunk.sizes, chunk.threads(), as<T>(chunk.input), as<O>(chunk.offset),
               mask.same, mask.wide, as<T>(columns));
  });
}

void cuda_spread(const CudaChunk& chunk, const void* grad_columns, const CudaGradients& gradients, cudaStream_t stream) {
  with_types(chunk, [&](auto* type, auto* offset_type, auto pack) {
    using T = std::remove_pointer_t<decltype(type)>;
    using O = std::remove_pointer_t<decltype(offset_type)>;
    with_wider<T>(chunk.mask_type, [&](auto* mask_type) {
      using M = std::remove_pointer_t<decltype(mask_type)>;
      using A = typename Sum<T>::type;
      const bool fixed = gradients.fixed_scale != nullptr;
      const InputGradient<A> sums = {fixed ? nullptr : as<A>(gradients.input), fixed ? as<unsigned long long>(gradients.input) : nullptr,
                                     gradients.fixed_scale};
      const Mask<T> mask(chunk);
      const auto kernel = &spread_columns<T, O, M, decltype(pack)::value>;
      DCN_LAUNCH(kernel, unsigned(chunk.blocks()), kThreads, stream, chunk.sizes, chunk.threads(), as<T>(chunk.input), as<O>(chunk.offset),
                 mask.same, mask.wide, as<T>(grad_columns), sums, as<O>(gradients.offset), as<M>(gradients.mask));
    });
  });
}

}  // namespace dcn
