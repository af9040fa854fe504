// CUDA: pixels are processed in chunks whose columns stay in the L2 cache. Columns are sampled from a channels-last copy of the input (one
// thread reads the offset and mask of a kernel point once for all channels of its deformable group), then one matrix product per chunk.
// tests/dcn/cuda_on_cpu compiles this file with a C++ compiler and runs the kernels on the CPU.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/ceil.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp2.h>
#include <ATen/ops/log2.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "operator.h"

#ifndef DCN_LAUNCH  // the tests replace both macros: a loop instead of a launch, and small chunks
#define DCN_LAUNCH(kernel, blocks, threads, ...) kernel<<<blocks, threads, 0, c10::cuda::getCurrentCUDAStream()>>>(__VA_ARGS__)
#endif
#ifndef DCN_CHUNK_BYTES
#define DCN_CHUNK_BYTES (24 << 20)  // of columns: fits easily into the L2 cache of an A100 or H100
#endif

namespace dcn {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kChunkBytes = DCN_CHUNK_BYTES;

// Everything a kernel needs besides pointers. Indices of elements are 64-bit; counts of threads per launch stay below 2^31.
struct Sizes {
  int channels, height, width, kernel_h, kernel_w, out_h, out_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, deform_groups;
  int64_t first, pixels;  // of the chunk, counted over the full batch
  __host__ __device__ int points() const { return kernel_h * kernel_w; }
  __host__ __device__ int group_channels() const { return channels / deform_groups; }
};

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

  __device__ Place(const Sizes& s, A y, A x, int64_t sample) {
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

  __device__ Item(const Sizes& s, int64_t index, const O* offset, const T* mask_same, const float* mask_float) {
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
    sample_columns(Sizes s, int64_t count, const T* __restrict__ input, const O* __restrict__ offset, const T* __restrict__ mask_same,
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
// deterministic mode the terms are therefore added as integers: 64-bit fixed-point numbers, `scale` units to one (Call::fixed_scale).
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
    spread_columns(Sizes s, int64_t count, const T* __restrict__ input, const O* __restrict__ offset, const T* __restrict__ mask_same,
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

// ---- launches

template <class T>
T* pointer(const Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

// The tensors of one call, made contiguous (input: channels-last).
struct Call {
  Sizes sizes;
  int64_t pixels, chunk, groups;
  Tensor input, offset, mask, weight;  // weight: [group][O/groups][point * C/groups]

  Call(const Problem& p, const Tensor& input_, const Tensor& offset_, const Tensor& weight_, const OptionalTensor& mask_)
      : input(input_.contiguous(at::MemoryFormat::ChannelsLast)), offset(offset_.contiguous()) {
    if (mask_) mask = mask_->contiguous();
    const auto narrow = [](int64_t value) { return static_cast<int>(value); };
    sizes = {narrow(p.channels), narrow(p.height),   narrow(p.width),    narrow(p.kernel_h),   narrow(p.kernel_w),
             narrow(p.out_h),    narrow(p.out_w),    narrow(p.stride_h), narrow(p.stride_w),   narrow(p.pad_h),
             narrow(p.pad_w),    narrow(p.dilation_h), narrow(p.dilation_w), narrow(p.deform_groups), 0, 0};
    groups = p.groups;
    pixels = input.size(0) * p.pixels();
    const int64_t row = p.points() * p.channels * input.element_size();
    chunk = std::min<int64_t>(pixels, std::max<int64_t>(kChunkBytes / row, 1024));
    weight = weight_.reshape({groups, p.out_channels / groups, p.channels / groups, p.points()}).permute({0, 1, 3, 2});
    weight = weight.reshape({groups, p.out_channels / groups, -1}).contiguous();
  }

  Tensor columns() const { return at::empty({chunk, sizes.points(), sizes.channels}, input.options().memory_format(at::MemoryFormat::Contiguous)); }

  // One convolution group's columns of the first `count` pixels: a view when there is one group, else a copy.
  Tensor group_columns(const Tensor& columns, int64_t count, int64_t group) const {
    const int64_t width = sizes.channels / groups;
    return columns.narrow(0, 0, count).narrow(2, group * width, width).reshape({count, sizes.points() * width});
  }

  // Numbers per access: as many as 16 bytes hold, the group's channels allow and the input's address is aligned to (it may be a view).
  int pack() const {
    const int64_t size = input.element_size();
    int pack = static_cast<int>(16 / size);
    while (sizes.group_channels() % pack || reinterpret_cast<uintptr_t>(input.const_data_ptr()) % (pack * size)) pack /= 2;
    return pack;
  }

  // Units of one in the fixed-point gradient of the input: the power of two at which no sum overflows. A sum has at most one term per
  // output pixel and kernel point, and a term is at most max |grad| * max (sum over outputs of |weight|) * max |mask|. That leaves
  // about 38 bits below the largest term for a map of 1000x1000, against the 24 of float32. NaN where an argument is not finite:
  // the gradient is then NaN too. The value stays on the device, without synchronisation.
  Tensor fixed_scale(const Tensor& grad) const {
    const auto largest = [](const Tensor& tensor) { return at::amax(at::abs(tensor)).to(at::kDouble); };
    Tensor bound = largest(grad).mul(largest(at::sum(at::abs(weight.to(at::kDouble)), 1)));
    if (mask.defined()) bound = bound.mul(largest(mask));
    const double terms = static_cast<double>(sizes.out_h) * sizes.out_w * sizes.points();
    const double bits = 61 - std::ceil(std::log2(terms));
    const Tensor scale = at::exp2(at::ceil(at::log2(at::clamp_min(bound, 1e-200))).neg().add(bits));
    return scale.add(bound.sub(bound));  // NaN for bounds that are infinite or NaN
  }

  template <class Body>
  void each_chunk(const Body& body) {
    for (sizes.first = 0; sizes.first < pixels; sizes.first += chunk) {
      sizes.pixels = std::min(chunk, pixels - sizes.first);
      body(sizes.pixels);
    }
  }
};

// Calls body with the memory type (as a null pointer) of the input, the offset, and integral_constant of the pack's size.
template <class T, class Body>
void with_pack(int pack, const Body& body) {
  if constexpr (sizeof(T) == 2)
    if (pack == 8) return body(std::integral_constant<int, 8>());
  if constexpr (sizeof(T) <= 4)
    if (pack == 4) return body(std::integral_constant<int, 4>());
  if (pack == 2) return body(std::integral_constant<int, 2>());
  body(std::integral_constant<int, 1>());
}

template <class Body>
void with_types(const Call& call, const Body& body) {
  const bool wide_offset = call.offset.scalar_type() == at::kFloat;
  const auto choose = [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    with_pack<T>(call.pack(), [&](auto pack) {
      if (wide_offset && sizeof(T) == 2)
        body(type, static_cast<float*>(nullptr), pack);
      else
        body(type, type, pack);
    });
  };
  switch (call.input.scalar_type()) {
    case at::kFloat: return choose(static_cast<float*>(nullptr));
    case at::kDouble: return choose(static_cast<double*>(nullptr));
    case at::kHalf: return choose(static_cast<c10::Half*>(nullptr));
    case at::kBFloat16: return choose(static_cast<c10::BFloat16*>(nullptr));
    default: TORCH_CHECK(false, "deform_conv2d: unsupported type ", call.input.scalar_type());
  }
}

unsigned blocks(int64_t count) {
  const int64_t needed = (count + kThreads - 1) / kThreads;
  TORCH_CHECK(needed < (int64_t(1) << 31), "deform_conv2d: too many pixels for one launch");
  return static_cast<unsigned>(needed);
}

void launch_sample(const Call& call, const Tensor& columns) {
  const int64_t count = call.sizes.pixels * call.sizes.points() * call.sizes.deform_groups;
  const bool same = call.mask.defined() && call.mask.scalar_type() == call.input.scalar_type();
  with_types(call, [&](auto* type, auto* offset_type, auto pack) {
    using T = std::remove_pointer_t<decltype(type)>;
    using O = std::remove_pointer_t<decltype(offset_type)>;
    const auto kernel = &sample_columns<T, O, decltype(pack)::value>;
    DCN_LAUNCH(kernel, blocks(count), kThreads, call.sizes, count, pointer<T>(call.input), pointer<O>(call.offset),
               same ? pointer<T>(call.mask) : nullptr, same ? nullptr : pointer<float>(call.mask), pointer<T>(columns));
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

// `scale` is defined in deterministic mode: grad_input then holds fixed-point numbers.
void launch_spread(const Call& call, const Tensor& grad_columns, const Tensor& grad_input, const Tensor& scale, const Tensor& grad_offset,
                   const Tensor& grad_mask) {
  const int64_t count = call.sizes.pixels * call.sizes.points() * call.sizes.deform_groups;
  const bool same = call.mask.defined() && call.mask.scalar_type() == call.input.scalar_type();
  with_types(call, [&](auto* type, auto* offset_type, auto pack) {
    using T = std::remove_pointer_t<decltype(type)>;
    using O = std::remove_pointer_t<decltype(offset_type)>;
    const auto run = [&](auto* mask_type) {
      using M = std::remove_pointer_t<decltype(mask_type)>;
      using A = typename Sum<T>::type;
      const InputGradient<A> sums = {scale.defined() ? nullptr : pointer<A>(grad_input),
                                     scale.defined() ? pointer<unsigned long long>(grad_input) : nullptr, pointer<double>(scale)};
      const auto kernel = &spread_columns<T, O, M, decltype(pack)::value>;
      DCN_LAUNCH(kernel, blocks(count), kThreads, call.sizes, count, pointer<T>(call.input), pointer<O>(call.offset),
                 same ? pointer<T>(call.mask) : nullptr, same ? nullptr : pointer<float>(call.mask), pointer<T>(grad_columns), sums,
                 pointer<O>(grad_offset), pointer<M>(grad_mask));
    };
    if (same || !call.mask.defined())
      run(static_cast<T*>(nullptr));
    else
      run(static_cast<float*>(nullptr));
  });
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

Tensor like(const Tensor& tensor) { return at::empty(tensor.sizes(), tensor.options().memory_format(at::MemoryFormat::Contiguous)); }

}  // namespace

Tensor cuda_forward(const Tensor& input, const Tensor& offset, const Tensor& weight, const OptionalTensor& bias, const OptionalTensor& mask,
                    IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation) {
  const Problem p = check(input, offset, weight, bias, mask, stride, padding, dilation);
  const c10::cuda::CUDAGuard guard(input.device());
  const auto options = input.options().memory_format(at::MemoryFormat::Contiguous);
  Tensor out = at::empty({input.size(0), p.out_h, p.out_w, p.out_channels}, options);
  if (out.numel() > 0) {
    Call call(p, input, offset, weight, mask);
    const Tensor columns = call.columns(), rows = out.view({call.pixels, p.out_channels});
    const int64_t outs = p.out_channels / p.groups;
    call.each_chunk([&](int64_t count) {
      launch_sample(call, columns);
      for (int64_t group = 0; group < p.groups; ++group) {
        Tensor to = rows.narrow(0, call.sizes.first, count).narrow(1, group * outs, outs);
        const Tensor left = call.group_columns(columns, count, group), right = call.weight[group].t();
        if (bias)
          at::addmm_out(to, bias->narrow(0, group * outs, outs), left, right);
        else
          at::mm_out(to, left, right);
      }
    });
  }
  return out.permute({0, 3, 1, 2}).contiguous();
}

Gradients cuda_backward(const Tensor& grad, const Tensor& input, const Tensor& offset, const Tensor& weight, const OptionalTensor& mask,
                        IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, std::array<bool, 4> wanted) {
  const Problem p = check(input, offset, weight, {}, mask, stride, padding, dilation);
  check_grad(p, grad, input);
  const c10::cuda::CUDAGuard guard(input.device());
  const auto options = input.options().memory_format(at::MemoryFormat::Contiguous);
  const auto sums = options.dtype(input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  Call call(p, input, offset, weight, mask);
  wanted[3] = wanted[3] && mask;
  const bool planes = wanted[1] || wanted[3], spread = planes || wanted[0];
  const Tensor grad_offset = planes ? like(offset) : Tensor(), grad_mask = planes && mask ? like(*mask) : Tensor();
  const Tensor scale = wanted[0] && call.pixels > 0 && at::globalContext().deterministicAlgorithms() ? call.fixed_scale(grad) : Tensor();
  const auto map_options = scale.defined() ? options.dtype(at::kLong) : sums;
  const Tensor grad_maps = wanted[0] ? at::zeros({input.size(0), p.height, p.width, p.channels}, map_options) : Tensor();
  const Tensor grad_weight = wanted[2] ? at::zeros(call.weight.sizes(), sums) : Tensor();
  const Tensor rows = grad.permute({0, 2, 3, 1}).reshape({call.pixels, p.out_channels});
  const Tensor columns = call.columns();
  const int64_t outs = p.out_channels / p.groups, width = p.channels / p.groups;
  call.each_chunk([&](int64_t count) {
    const Tensor chunk = rows.narrow(0, call.sizes.first, count);
    if (wanted[2]) {
      launch_sample(call, columns);
      for (int64_t group = 0; group < p.groups; ++group)
        grad_weight[group].add_(at::mm(chunk.narrow(1, group * outs, outs).t(), call.group_columns(columns, count, group)));
    }
    if (spread) {
      for (int64_t group = 0; group < p.groups; ++group) {
        const Tensor product = at::mm(chunk.narrow(1, group * outs, outs), call.weight[group]);
        columns.narrow(0, 0, count).narrow(2, group * width, width).copy_(product.view({count, p.points(), width}));
      }
      launch_spread(call, columns, grad_maps, scale, grad_offset, grad_mask);
    }
  });
  const auto result = [&](bool want, const Tensor& tensor) { return want ? tensor : at::empty({0}, options); };
  const auto finish_weight = [&] {
    const Tensor ordered = grad_weight.view({p.groups, outs, p.points(), width}).permute({0, 1, 3, 2});
    return ordered.reshape(weight.sizes()).to(weight.scalar_type()).contiguous();
  };
  const auto finish_input = [&] {
    const Tensor maps = scale.defined() ? grad_maps.to(at::kDouble).div(scale) : grad_maps;
    return maps.permute({0, 3, 1, 2}).to(input.scalar_type()).contiguous();
  };
  return {wanted[0] ? finish_input() : result(false, {}),
          result(wanted[1], grad_offset), wanted[2] ? finish_weight() : result(false, {}), result(wanted[3], grad_mask)};
}

}  // namespace dcn
