// Description of one deformable convolution, for the CPU kernels. No PyTorch here: the kernels are compiled once per
// instruction set, and a header with inline functions of others could leak AVX-512 code into the rest of the program.
#pragma once
#include <cstdint>

namespace dcn {

enum class Type : int { f32, f64, f16, bf16 };

// Rows of zeros around every map: a sample that is clamped to -2 or to the size reads only zeros, so no corner needs a test.
constexpr int64_t kBorder = 2;
// Output pixels per block; their samples stay in the L1 or L2 cache. A multiple of every kernel's row tile.
constexpr int64_t kBlock = 96;

// A tensor of one sample: element (c, y, x) is at c * channel + y * row + x * pixel.
struct Map {
  const void* data;
  Type type;
  int64_t channel, row, pixel;
};

// Channels are handled in slices: neighbouring channels that share a deformable group and a convolution group.
// A map in working layout is [slice][(height + 4) * (width + 4)][width of the slice].
struct Problem {
  int64_t channels, height, width, out_channels, kernel_h, kernel_w, out_h, out_w;
  int64_t stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int64_t groups, deform_groups;
  int64_t slice_width, slices;
  int64_t columns;         // kernel points * slice_width: entries of one slice in a pixel's column
  int64_t columns_padded;  // to full vectors
  int64_t outs;            // output channels of one convolution group
  int64_t outs_padded;     // to full vectors
  int64_t outs_tiled;      // to full row tiles

  int64_t points() const { return kernel_h * kernel_w; }
  int64_t pixels() const { return out_h * out_w; }
  int64_t blocks() const { return (pixels() + kBlock - 1) / kBlock; }
  int64_t map_width() const { return width + 2 * kBorder; }
  int64_t map_size() const { return (height + 2 * kBorder) * map_width() * slice_width; }
  int64_t slices_per_deform_group() const { return slices / deform_groups; }
  int64_t deform_group(int64_t slice) const { return slice / slices_per_deform_group(); }
  int64_t group(int64_t slice) const { return slice / (slices / groups); }
  int64_t forward_weights() const { return slices * columns * outs_padded; }
  int64_t backward_weights() const { return slices * outs_tiled * columns_padded; }
};

// All data below has the working type (float or double), except for Maps and pointers with a Type. `maps` of a backward task hold only
// its own slices.
struct Forward {
  const void* maps;
  const void* weights;  // [slice][column][outs_padded]
  const void* bias;     // [out channel], or null
  Map offset, mask;     // mask.data may be null
  void* out;            // (O, pixels) of out_type, or (pixels, O)
  Type out_type;
  bool channels_last;
};

struct Backward {
  const void* maps;
  const void* weights;  // [slice][outs_tiled][columns_padded]
  Map offset, mask;
  Map grad_out;
  void* grad_maps;     // as maps, zeroed by the kernel; null: not wanted
  void* grad_weights;  // as weights, to be added to; null: not wanted
  void* grad_offset;   // (2 * points, pixels) of this deformable group; null: neither it nor grad_mask is wanted
  void* grad_mask;     // (points, pixels); null without mask
  Type grad_offset_type, grad_mask_type;  // the working type if the group has several slices
};

// The kernels of one instruction set and working type. One thread processes a range [begin, end).
struct Kernels {
  const char* name;
  int64_t lanes, row_tile;
  int64_t (*forward_scratch)(const Problem&);  // elements of the working type
  int64_t (*backward_scratch)(const Problem&);
  void (*pack_map)(const Problem&, const Map& input, void* maps, int64_t first_slice, int64_t begin, int64_t end);  // rows
  void (*unpack_map)(const Problem&, const void* maps, void* out, Type, int64_t first_slice, int64_t last_slice);
  void (*pack_weight)(const Problem&, const void* weight, Type, void* packed, bool backward, int64_t begin, int64_t end);
  void (*unpack_weight)(const Problem&, const void* packed, int64_t copies, void* out, Type, int64_t begin, int64_t end);
  void (*forward)(const Problem&, const Forward&, void* scratch, int64_t begin, int64_t end);  // blocks
  void (*backward)(const Problem&, const Backward&, void* scratch, int64_t first_slice, int64_t last_slice);
};

}  // namespace dcn
