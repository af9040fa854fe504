// CUDA: pixels are processed in chunks whose columns stay in the L2 cache. Columns are sampled from a channels-last copy of the input (one
// thread reads the offset and mask of a kernel point once for all channels of its deformable group), then one matrix product per chunk.
// The kernels are in cuda_kernel.cu.
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

#include "cuda_kernel.h"
#include "operator.h"

#ifndef DCN_CHUNK_BYTES  // the tests take small chunks
#define DCN_CHUNK_BYTES (24 << 20)  // of columns: fits easily into the L2 cache of an A100 or H100
#endif

namespace dcn {
namespace {

constexpr int64_t kChunkBytes = DCN_CHUNK_BYTES;

// The tensors of one call, made contiguous (input: channels-last).
struct Call {
  CudaSizes sizes;
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

  // The chunk for the kernels.
  CudaChunk pointers() const {
    const bool masked = mask.defined();
    const CudaChunk made = {sizes,
                            pack(),
                            type_of(input),
                            type_of(offset),
                            type_of(masked ? mask : input),
                            input.const_data_ptr(),
                            offset.const_data_ptr(),
                            masked ? mask.const_data_ptr() : nullptr};
    TORCH_CHECK(made.blocks() < (int64_t(1) << 31), "deform_conv2d: too many pixels for one launch");
    return made;
  }

  template <class Body>
  void each_chunk(const Body& body) {
    for (sizes.first = 0; sizes.first < pixels; sizes.first += chunk) {
      sizes.pixels = std::min(chunk, pixels - sizes.first);
      body(sizes.pixels);
    }
  }
};

void sample(const Call& call, const Tensor& columns) {
  cuda_sample(call.pointers(), columns.mutable_data_ptr(), c10::cuda::getCurrentCUDAStream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

void* pointer(const Tensor& tensor) { return tensor.defined() ? tensor.mutable_data_ptr() : nullptr; }

// `scale` is defined in deterministic mode: grad_input then holds fixed-point numbers.
void spread(const Call& call, const Tensor& grad_columns, const Tensor& grad_input, const Tensor& scale, const Tensor& grad_offset,
            const Tensor& grad_mask) {
  const CudaGradients gradients = {pointer(grad_input), static_cast<const double*>(pointer(scale)), pointer(grad_offset), pointer(grad_mask)};
  cuda_spread(call.pointers(), grad_columns.const_data_ptr(), gradients, c10::cuda::getCurrentCUDAStream());
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
      sample(call, columns);
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
  const bool planes = wanted[1] || wanted[3], any_map = planes || wanted[0];
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
      sample(call, columns);
      for (int64_t group = 0; group < p.groups; ++group)
        grad_weight[group].add_(at::mm(chunk.narrow(1, group * outs, outs).t(), call.group_columns(columns, count, group)));
    }
    if (any_map) {
      for (int64_t group = 0; group < p.groups; ++group) {
        const Tensor product = at::mm(chunk.narrow(1, group * outs, outs), call.weight[group]);
        columns.narrow(0, 0, count).narrow(2, group * width, width).copy_(product.view({count, p.points(), width}));
      }
      spread(call, columns, grad_maps, scale, grad_offset, grad_mask);
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
