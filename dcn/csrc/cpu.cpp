// CPU: memory, threads and the choice of the instruction set; the arithmetic is in cpu_kernel.cpp.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "operator.h"

namespace dcn {

DCN_KERNELS(Kernels, kernels_f32)
DCN_KERNELS(Kernels, kernels_f64)

Level instruction_set() {
#ifdef DCN_X86
  static const Level level = [] {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return Level::baseline;
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl");
    if (!avx512) return Level::avx2;
    return __builtin_cpu_supports("avx512bf16") ? Level::avx512bf16 : Level::avx512;
  }();
  return level;
#else
  return Level::baseline;
#endif
}

namespace {

const Kernels& kernels(bool is_double) { return is_double ? best_kernels_f64() : best_kernels_f32(); }

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// The widest slice with a specialised kernel, else the widest that fits into the cache.
int64_t slice_width(int64_t channels, int64_t widest) {
  for (const int64_t width : {widest, int64_t(8), int64_t(4)})
    if (channels % width == 0) return width;
  int64_t width = std::min<int64_t>(channels, 16);
  while (channels % width) --width;
  return width;
}

void plan(Problem& p, const Kernels& k, bool is_double) {
  p.slice_width = slice_width(std::gcd(p.channels / p.deform_groups, p.channels / p.groups), is_double ? 8 : 16);
  p.slices = p.channels / p.slice_width;
  p.columns = p.points() * p.slice_width;
  p.columns_padded = round_up(p.columns, k.lanes);
  p.outs = p.out_channels / p.groups;
  p.outs_padded = round_up(p.outs, k.lanes);
  p.outs_tiled = round_up(p.outs, k.row_tile);
  TORCH_CHECK(p.map_size() < (int64_t(1) << 31), "deform_conv2d: a map of ", p.height, "x", p.width, " is too large");
  TORCH_CHECK(kBlock % k.row_tile == 0, "deform_conv2d: kBlock must be a multiple of the row tile");
}

// Makes the planes of a gradient contiguous: pixels of one channel are adjacent, channels and samples have any stride.
Tensor with_flat_planes(const Tensor& tensor) {
  const bool flat = tensor.stride(3) == 1 && tensor.stride(2) == tensor.size(3);
  return flat ? tensor : tensor.contiguous();
}

// Gives the pixels of offset or mask a constant stride, across row ends too. Contiguous and channels-last tensors both have one.
Tensor with_even_pixels(const Tensor& tensor) {
  const bool even = tensor.stride(2) == tensor.size(3) * tensor.stride(3);
  return even ? tensor : tensor.contiguous();
}

Map map_of(const Tensor& tensor, int64_t sample) {
  const auto* start = static_cast<const char*>(tensor.const_data_ptr()) + sample * tensor.stride(0) * tensor.element_size();
  const int64_t pixel = tensor.size(3) == 1 ? tensor.stride(2) : tensor.stride(3);  // the stride of a single column may be anything
  return {start, type_of(tensor), tensor.stride(1), tensor.stride(2), pixel};
}

void* at_element(const Tensor& tensor, int64_t index) {
  return static_cast<char*>(tensor.mutable_data_ptr()) + index * tensor.element_size();
}

// body(begin, end, scratch of the thread)
struct Threads {
  Tensor memory;
  int64_t scratch;

  Threads(int64_t elements, at::TensorOptions options)
      : memory(at::empty({at::get_num_threads() * round_up(elements, 64)}, options)), scratch(round_up(elements, 64)) {}

  template <class Body>
  void run(int64_t count, const Body& body) const {
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) { body(begin, end, at_element(memory, at::get_thread_num() * scratch)); });
  }
};

Tensor pack_weight(const Problem& p, const Kernels& k, const Tensor& weight, bool backward, at::TensorOptions options) {
  Tensor packed = at::empty({backward ? p.backward_weights() : p.forward_weights()}, options);
  at::parallel_for(0, p.slices, 1, [&](int64_t begin, int64_t end) {
    k.pack_weight(p, weight.const_data_ptr(), type_of(weight), packed.mutable_data_ptr(), backward, begin, end);
  });
  return packed;
}

void pack_map(const Problem& p, const Kernels& k, const Tensor& input, int64_t sample, void* maps) {
  at::parallel_for(0, p.slices * (p.height + 2 * kBorder), 16,
                   [&](int64_t begin, int64_t end) { k.pack_map(p, map_of(input, sample), maps, 0, begin, end); });
}

}  // namespace

Tensor cpu_forward(const Tensor& input, const Tensor& offset_, const Tensor& weight_, const OptionalTensor& bias_,
                   const OptionalTensor& mask_, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation) {
  Problem p = check(input, offset_, weight_, bias_, mask_, stride, padding, dilation);
  const bool is_double = input.scalar_type() == at::kDouble;
  const Kernels& k = kernels(is_double);
  plan(p, k, is_double);
  const auto options = input.options().dtype(is_double ? at::kDouble : at::kFloat).memory_format(at::MemoryFormat::Contiguous);
  const bool channels_last = !input.is_contiguous() && input.is_contiguous(at::MemoryFormat::ChannelsLast);
  const auto format = channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  Tensor out = at::empty({input.size(0), p.out_channels, p.out_h, p.out_w}, input.options().memory_format(format));
  if (out.numel() == 0) return out;
  const Tensor offset = with_even_pixels(offset_), mask = mask_ ? with_even_pixels(*mask_) : Tensor();
  const Tensor bias = bias_ ? bias_->to(options.dtype()).contiguous() : Tensor();
  const Tensor weights = pack_weight(p, k, weight_.contiguous(), false, options);
  const Tensor maps = at::empty({p.slices * p.map_size()}, options);
  const Threads threads(k.forward_scratch(p), options);
  for (int64_t sample = 0; sample < input.size(0); ++sample) {
    pack_map(p, k, input, sample, maps.mutable_data_ptr());
    Forward f{};
    f.maps = maps.const_data_ptr();
    f.weights = weights.const_data_ptr();
    f.bias = bias.defined() ? bias.const_data_ptr() : nullptr;
    f.offset = map_of(offset, sample);
    if (mask.defined()) f.mask = map_of(mask, sample);
    f.out = at_element(out, sample * p.out_channels * p.pixels());
    f.out_type = type_of(out);
    f.channels_last = channels_last;
    threads.run(p.blocks(), [&](int64_t begin, int64_t end, void* scratch) { k.forward(p, f, scratch, begin, end); });
  }
  return out;
}

// ---- backward

namespace {

// Number of pieces that the slices of a deformable group are divided into, so that several threads have work if there are few groups.
// It depends only on shapes. Each piece has separate offset gradients, which are then added in order.
int64_t pieces_per_group(const Problem& p) {
  int64_t pieces = std::min<int64_t>(4, std::max<int64_t>(1, 8 / p.deform_groups));
  while (p.slices_per_deform_group() % pieces) --pieces;
  return pieces;
}

// Gradients of offset or mask: written directly to the result if there is nothing to sum, else accumulated in the working type.
struct PlaneGradient {
  Tensor result, work;  // [sample in progress][group][piece][planes][pixels]
  int64_t planes = 0, groups = 1, pieces = 1;

  PlaneGradient() = default;
  PlaneGradient(const Tensor& like, const Problem& p, int64_t samples, int64_t pieces, at::TensorOptions options)
      : result(at::empty(like.sizes(), like.options().memory_format(at::MemoryFormat::Contiguous))),
        planes(like.size(1) / p.deform_groups),
        groups(p.deform_groups),
        pieces(pieces) {
    const bool sums = p.slices_per_deform_group() > 1 && like.scalar_type() != at::typeMetaToScalarType(options.dtype());
    if (pieces > 1 || sums) work = at::empty({samples, groups, pieces, planes, p.pixels()}, options);
  }

  void* place(int64_t sample, int64_t slot, int64_t group, int64_t piece) const {
    if (!result.defined()) return nullptr;
    const int64_t size = planes * result.size(2) * result.size(3);
    return work.defined() ? at_element(work, ((slot * groups + group) * pieces + piece) * size)
                          : at_element(result, (sample * groups + group) * size);
  }

  Type type() const { return type_of(work.defined() ? work : result); }

  void finish(int64_t first, int64_t samples) const {
    if (work.defined()) {
      Tensor sum = work.narrow(0, 0, samples).select(2, 0).clone();
      for (int64_t piece = 1; piece < pieces; ++piece) sum.add_(work.narrow(0, 0, samples).select(2, piece));
      result.narrow(0, first, samples).copy_(sum.view({samples, result.size(1), result.size(2), result.size(3)}));
    }
  }
};

Tensor unpack_weight(const Problem& p, const Kernels& k, const Tensor& packed, const Tensor& weight) {
  Tensor grad = at::empty(weight.sizes(), weight.options().memory_format(at::MemoryFormat::Contiguous));
  at::parallel_for(0, p.slices, 1, [&](int64_t begin, int64_t end) {
    k.unpack_weight(p, packed.const_data_ptr(), packed.size(0), grad.mutable_data_ptr(), type_of(grad), begin, end);
  });
  return grad;
}

// Inputs and outputs of one backward pass over a batch; `at_once` samples are processed in parallel.
struct BackwardPass {
  Problem p;
  const Kernels& k;
  at::TensorOptions options;
  Tensor grad, input, offset, weight, mask;
  std::array<bool, 4> wanted;
  int64_t pieces, tasks, at_once;
  Tensor weights, grad_weights, grad_input;
  PlaneGradient grad_offset, grad_mask;

  void allocate() {
    pieces = pieces_per_group(p), tasks = p.deform_groups * pieces;
    at_once = std::max<int64_t>(1, std::min<int64_t>(input.size(0), at::get_num_threads() / tasks));
    weights = pack_weight(p, k, weight, true, options);
    if (wanted[0]) grad_input = at::empty(input.sizes(), input.options().memory_format(at::MemoryFormat::Contiguous));
    if (wanted[2]) grad_weights = at::zeros({at_once, p.backward_weights()}, options);
    if (!wanted[1] && !wanted[3]) return;
    grad_offset = PlaneGradient(offset, p, at_once, pieces, options);
    if (mask.defined()) grad_mask = PlaneGradient(mask, p, at_once, pieces, options);
  }

  // Elements that a thread needs: the maps and map gradients of its current task, and the kernel's scratch memory.
  int64_t task_maps() const { return round_up(p.slices / tasks * p.map_size(), 64); }
  int64_t scratch() const { return 2 * task_maps() + k.backward_scratch(p); }

  // One piece of a deformable group of one sample: no other thread writes there.
  void run_task(int64_t slot, int64_t sample, int64_t task, char* memory) const {
    const int64_t first = p.slices / tasks * task, last = p.slices / tasks * (task + 1);
    const int64_t map_bytes = task_maps() * static_cast<int64_t>(options.dtype().itemsize());
    void *maps = memory, *grad_maps = memory + map_bytes;
    k.pack_map(p, map_of(input, sample), maps, first, 0, (last - first) * (p.height + 2 * kBorder));
    Backward b{};
    b.maps = maps;
    b.weights = weights.const_data_ptr();
    b.offset = map_of(offset, sample);
    if (mask.defined()) b.mask = map_of(mask, sample);
    b.grad_out = map_of(grad, sample);
    b.grad_maps = wanted[0] ? grad_maps : nullptr;
    b.grad_weights = wanted[2] ? at_element(grad_weights, slot * p.backward_weights()) : nullptr;
    b.grad_offset = grad_offset.place(sample, slot, task / pieces, task % pieces);
    b.grad_mask = grad_mask.place(sample, slot, task / pieces, task % pieces);
    if (b.grad_offset) b.grad_offset_type = grad_offset.type();
    if (b.grad_mask) b.grad_mask_type = grad_mask.type();
    k.backward(p, b, memory + 2 * map_bytes, first, last);
    if (!wanted[0]) return;
    void* to = at_element(grad_input, sample * p.channels * p.height * p.width);
    k.unpack_map(p, grad_maps, to, type_of(grad_input), first, last);
  }

  void run_samples(const Threads& threads, int64_t first, int64_t samples) const {
    threads.run(samples * tasks, [&](int64_t begin, int64_t end, void* scratch) {
      for (int64_t index = begin; index < end; ++index) run_task(index / tasks, first + index / tasks, index % tasks, static_cast<char*>(scratch));
    });
    grad_offset.finish(first, samples);
    grad_mask.finish(first, samples);
  }
};

}  // namespace

Gradients cpu_backward(const Tensor& grad, const Tensor& input, const Tensor& offset, const Tensor& weight, const OptionalTensor& mask,
                       IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, std::array<bool, 4> wanted) {
  Problem p = check(input, offset, weight, {}, mask, stride, padding, dilation);
  check_grad(p, grad, input);
  wanted[3] = wanted[3] && mask;
  const bool is_double = input.scalar_type() == at::kDouble;
  const Kernels& k = kernels(is_double);
  plan(p, k, is_double);
  const auto options = input.options().dtype(is_double ? at::kDouble : at::kFloat).memory_format(at::MemoryFormat::Contiguous);
  BackwardPass pass{p, k, options, with_flat_planes(grad), input, with_even_pixels(offset), weight.contiguous(),
                    mask ? with_even_pixels(*mask) : Tensor(), wanted};
  pass.allocate();
  const Threads threads(pass.scratch(), options);
  for (int64_t first = 0; first < input.size(0); first += pass.at_once)
    pass.run_samples(threads, first, std::min(pass.at_once, input.size(0) - first));
  const auto result = [&](bool want, const Tensor& tensor) { return want ? tensor : at::empty({0}, input.options()); };
  return {result(wanted[0], pass.grad_input), result(wanted[1], pass.grad_offset.result),
          result(wanted[2], wanted[2] ? unpack_weight(p, k, pass.grad_weights, weight) : Tensor()),
          result(wanted[3], pass.grad_mask.result)};
}

}  // namespace dcn
