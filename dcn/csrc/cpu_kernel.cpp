// CPU kernels: blocks of output pixels, slice by slice; the matrix product reads the samples of a block from the cache.
// Compiled once per instruction set with DCN_ISA=its name; `cpu.cpp` chooses at run time.
#include "problem.h"
#include "rows.h"
#include "sampling.h"
#include "vector.h"

namespace {

using dcn::Backward;
using dcn::Forward;
using dcn::Kernels;

// Calls body(integral_constant<int, WIDTH>) with the slice's width if there is a specialised kernel, else with 0.
template <class S, class Body>
void with_width(int64_t width, const Body& body) {
  constexpr int widest = 64 / sizeof(S);
  if (width == widest) return body(std::integral_constant<int, widest>());
  if (width == 8) return body(std::integral_constant<int, 8>());
  if (width == 4) return body(std::integral_constant<int, 4>());
  body(std::integral_constant<int, 0>());
}

// ---- working layouts

// Rows are counted over the slices from `first_slice` on, which is where `maps` begins.
template <class S>
void pack_map(const Problem& p, const Map& input, void* maps, int64_t first_slice, int64_t begin, int64_t end) {
  const int64_t rows = p.height + 2 * dcn::kBorder, width = p.slice_width, row_size = p.map_width() * width;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t slice = first_slice + index / rows, y = index % rows - dcn::kBorder;
    S* to = static_cast<S*>(maps) + index * row_size;
    if (y < 0 || y >= p.height) {
      std::memset(to, 0, row_size * sizeof(S));
      continue;
    }
    std::memset(to, 0, dcn::kBorder * width * sizeof(S));
    std::memset(to + row_size - dcn::kBorder * width, 0, dcn::kBorder * width * sizeof(S));
    to += dcn::kBorder * width;
    for (int64_t x = 0; x < p.width; x += kBlock)
      for (int64_t j = 0; j < width; ++j)
        load_row(input.data, input.type, (slice * width + j) * input.channel + y * input.row + x * input.pixel, input.pixel,
                 to + x * width + j, width, smaller(kBlock, p.width - x));
  }
}

template <class S>
void unpack_map(const Problem& p, const void* maps, void* out, Type type, int64_t first_slice, int64_t last_slice) {
  const int64_t width = p.slice_width;
  for (int64_t channel = first_slice * width; channel < last_slice * width; ++channel) {
    const S* from = static_cast<const S*>(maps) + (channel / width - first_slice) * p.map_size() + channel % width;
    from += (dcn::kBorder * p.map_width() + dcn::kBorder) * width;
    for (int64_t y = 0; y < p.height; ++y)
      store_row(from + y * p.map_width() * width, width, out, type, (channel * p.height + y) * p.width, 1, p.width);
  }
}

// weight (O, C/groups, points): element of output channel o of the slice's group, kernel point and the slice's channel j.
inline int64_t weight_at(const Problem& p, int64_t slice, int64_t o, int64_t point, int64_t j) {
  const int64_t group_channels = p.channels / p.groups, group = p.group(slice);
  const int64_t channel = slice * p.slice_width - group * group_channels + j;
  return ((group * p.outs + o) * group_channels + channel) * p.points() + point;
}

template <class S>
void pack_weight(const Problem& p, const void* weight, Type type, void* packed, bool backward, int64_t begin, int64_t end) {
  const int64_t width = p.slice_width;
  const int64_t size = backward ? p.outs_tiled * p.columns_padded : p.columns * p.outs_padded;
  const int64_t out_step = backward ? p.columns_padded : 1, column_step = backward ? 1 : p.outs_padded;
  for (int64_t slice = begin; slice < end; ++slice) {
    S* to = static_cast<S*>(packed) + slice * size;
    std::memset(to, 0, size * sizeof(S));
    for (int64_t o = 0; o < p.outs; ++o)
      for (int64_t j = 0; j < width; ++j)
        load_row(weight, type, weight_at(p, slice, o, 0, j), 1, to + o * out_step + j * column_step, width * column_step, p.points());
  }
}

// Sums `copies` packed weight gradients in order and writes them in the weight's layout.
template <class S>
void unpack_weight(const Problem& p, const void* packed, int64_t copies, void* out, Type type, int64_t begin, int64_t end) {
  const int64_t width = p.slice_width, size = p.outs_tiled * p.columns_padded;
  for (int64_t slice = begin; slice < end; ++slice)
    for (int64_t o = 0; o < p.outs; ++o)
      for (int64_t j = 0; j < width; ++j)
        for (int64_t point = 0; point < p.points(); ++point) {
          const S* from = static_cast<const S*>(packed) + slice * size + o * p.columns_padded + point * width + j;
          S sum = 0;
          for (int64_t copy = 0; copy < copies; ++copy) sum += from[copy * p.backward_weights()];
          store_row(&sum, 1, out, type, weight_at(p, slice, o, point, j), 1, 1);
        }
}

// ---- forward

template <class S>
int64_t forward_scratch(const Problem& p) {
  return kBlock * (p.columns + p.groups * p.outs_padded) + int64_t(sizeof(Places<S>) / sizeof(S)) + 16;
}

template <class S, int WIDTH>
void forward_block(const Problem& p, const Forward& f, S* scratch, int64_t first, int64_t count) {
  S* columns = scratch;                       // [pixel][point * slice_width]
  S* sums = columns + kBlock * p.columns;     // [group][pixel][outs_padded]
  auto& at = *reinterpret_cast<Places<S>*>(sums + kBlock * p.groups * p.outs_padded);
  const int64_t rows = round_up(count, kRowTile), sum_size = kBlock * p.outs_padded;
  for (int64_t g = 0; g < p.groups; ++g) {
    S* to = sums + g * sum_size;
    std::memset(to, 0, p.outs_padded * sizeof(S));
    if (f.bias) std::memcpy(to, static_cast<const S*>(f.bias) + g * p.outs, p.outs * sizeof(S));
    for (int64_t i = 1; i < rows; ++i) std::memcpy(to + i * p.outs_padded, to, p.outs_padded * sizeof(S));
  }
  start_block(p, first, count, at);
  for (int64_t slice = 0; slice < p.slices; ++slice) {
    const S* map = static_cast<const S*>(f.maps) + slice * p.map_size();
    for (int64_t point = 0; point < p.points(); ++point) {
      place(p, f.offset, f.mask, p.deform_group(slice), point, first, count, true, at);
      sample<S, WIDTH>(p, map, at, count, columns + point * p.slice_width, p.columns);
    }
    const S* weights = static_cast<const S*>(f.weights) + slice * p.columns * p.outs_padded;
    multiply(rows, p.outs_padded, p.columns, columns, p.columns, 1, weights, p.outs_padded, sums + p.group(slice) * sum_size,
             p.outs_padded);
  }
  if (f.channels_last) {
    for (int64_t i = 0; i < count; ++i)
      for (int64_t g = 0; g < p.groups; ++g)
        store_row(sums + g * sum_size + i * p.outs_padded, 1, f.out, f.out_type, (first + i) * p.out_channels + g * p.outs, 1, p.outs);
  } else {
    for (int64_t o = 0; o < p.out_channels; ++o)
      store_row(sums + o / p.outs * sum_size + o % p.outs, p.outs_padded, f.out, f.out_type, o * p.pixels() + first, 1, count);
  }
}

template <class S>
void forward(const Problem& p, const Forward& f, void* scratch, int64_t begin, int64_t end) {
  with_width<S>(p.slice_width, [&](auto width) {
    for (int64_t block = begin; block < end; ++block)
      forward_block<S, width>(p, f, static_cast<S*>(scratch), block * kBlock, smaller(kBlock, p.pixels() - block * kBlock));
  });
}

// ---- backward

template <class S>
int64_t backward_scratch(const Problem& p) {
  return kBlock * (p.outs_tiled + 2 * p.columns_padded + 4) + int64_t(sizeof(Places<S>) / sizeof(S)) + 16;
}

template <class S>
struct BackwardScratch {
  S *grad_out, *grad_columns, *columns;  // [outs_tiled][kBlock], 2 * [pixel][columns_padded]
  S (*dots)[4];
  Places<S>* at;

  BackwardScratch(const Problem& p, void* memory) {
    grad_out = static_cast<S*>(memory);
    grad_columns = grad_out + p.outs_tiled * kBlock;
    columns = grad_columns + kBlock * p.columns_padded;
    dots = reinterpret_cast<S(*)[4]>(columns + kBlock * p.columns_padded);
    at = reinterpret_cast<Places<S>*>(dots + kBlock);
  }
};

// One row of a plane's gradient: stored, or added to the values of an earlier slice of the group (then always of the working type).
template <class S>
void put_plane(const S* values, void* data, Type type, int64_t at, int64_t count, bool add) {
  if (!add) return store_row(values, 1, data, type, at, 1, count);
  S* to = static_cast<S*>(data) + at;
  for (int64_t i = 0; i < count; ++i) to[i] += values[i];
}

// Gradients of offset and mask at one kernel point from the corner sums.
template <class S>
void finish_point(const Problem& p, const Backward& b, const BackwardScratch<S>& s, int64_t point, int64_t first, int64_t count, bool add) {
  S grad_y[kBlock], grad_x[kBlock], grad_mask[kBlock];
  for (int64_t i = 0; i < count; ++i) {
    const S* dots = s.dots[i];
    const S down = s.at->down[i], right = s.at->right[i], mask = s.at->mask[i];
    const S up_row = (1 - right) * dots[0] + right * dots[1], low_row = (1 - right) * dots[2] + right * dots[3];
    grad_y[i] = mask * (low_row - up_row);
    grad_x[i] = mask * ((1 - down) * (dots[1] - dots[0]) + down * (dots[3] - dots[2]));
    grad_mask[i] = (1 - down) * up_row + down * low_row;
  }
  put_plane(grad_y, b.grad_offset, b.grad_offset_type, 2 * point * p.pixels() + first, count, add);
  put_plane(grad_x, b.grad_offset, b.grad_offset_type, (2 * point + 1) * p.pixels() + first, count, add);
  if (b.grad_mask) put_plane(grad_mask, b.grad_mask, b.grad_mask_type, point * p.pixels() + first, count, add);
}

template <class S, int WIDTH>
void backward_block(const Problem& p, const Backward& b, const BackwardScratch<S>& s, int64_t slice, int64_t index, int64_t first,
                    int64_t count) {
  const S* map = static_cast<const S*>(b.maps) + index * p.map_size();
  const int64_t weight_size = p.outs_tiled * p.columns_padded, row = p.columns_padded;
  std::memset(s.grad_columns, 0, kBlock * row * sizeof(S));
  multiply(round_up(count, kRowTile), row, p.outs, s.grad_out, 1, kBlock, static_cast<const S*>(b.weights) + slice * weight_size, row,
           s.grad_columns, row);
  for (int64_t point = 0; point < p.points(); ++point) {
    const S* grad = s.grad_columns + point * p.slice_width;
    place(p, b.offset, b.mask, p.deform_group(slice), point, first, count, true, *s.at);
    if (b.grad_offset) {
      dot_corners<S, WIDTH>(p, map, *s.at, count, grad, row, s.dots);
      finish_point(p, b, s, point, first, count, index > 0);
    }
    if (b.grad_maps) scatter<S, WIDTH>(p, static_cast<S*>(b.grad_maps) + index * p.map_size(), *s.at, count, grad, row);
    if (b.grad_weights) sample<S, WIDTH>(p, map, *s.at, count, s.columns + point * p.slice_width, row);
  }
  if (b.grad_weights)
    multiply(p.outs_tiled, row, count, s.grad_out, kBlock, 1, s.columns, row, static_cast<S*>(b.grad_weights) + slice * weight_size, row);
}

// Gradients of the slices [first_slice, last_slice) of ONE deformable group: no other thread writes there, so no atomics.
template <class S>
void backward(const Problem& p, const Backward& b, void* memory, int64_t first_slice, int64_t last_slice) {
  const BackwardScratch<S> s(p, memory);
  if (b.grad_maps)
    std::memset(b.grad_maps, 0, (last_slice - first_slice) * p.map_size() * sizeof(S));
  for (int64_t first = 0; first < p.pixels(); first += kBlock) {
    const int64_t count = smaller(kBlock, p.pixels() - first);
    start_block(p, first, count, *s.at);
    for (int64_t slice = first_slice; slice < last_slice; ++slice) {
      const int64_t group = p.group(slice);
      if (slice == first_slice || group != p.group(slice - 1))
        for (int64_t o = 0; o < p.outs; ++o) {
          S* to = s.grad_out + o * kBlock;
          load_row(b.grad_out.data, b.grad_out.type, (group * p.outs + o) * b.grad_out.channel + first, 1, to, 1, count);
          std::memset(to + count, 0, (kBlock - count) * sizeof(S));
        }
      with_width<S>(p.slice_width, [&](auto width) { backward_block<S, width>(p, b, s, slice, slice - first_slice, first, count); });
    }
  }
}

template <class S>
constexpr Kernels table(const char* name) {
  return {name,           DCN_VECTOR_BYTES / sizeof(S), kRowTile,         forward_scratch<S>, backward_scratch<S>, pack_map<S>,
          unpack_map<S>, pack_weight<S>,               unpack_weight<S>, forward<S>,         backward<S>};
}

}  // namespace

#define DCN_TEXT_(a) #a
#define DCN_TEXT(a) DCN_TEXT_(a)

namespace dcn {
extern const Kernels DCN_NAME(kernels_f32_, DCN_ISA);
extern const Kernels DCN_NAME(kernels_f64_, DCN_ISA);
const Kernels DCN_NAME(kernels_f32_, DCN_ISA) = table<float>(DCN_TEXT(DCN_ISA));
const Kernels DCN_NAME(kernels_f64_, DCN_ISA) = table<double>(DCN_TEXT(DCN_ISA));
}  // namespace dcn
