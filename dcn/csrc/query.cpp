// STNO's query on CPUs: arguments, memory, threads and the choice of the kernel.
#include "query.h"

#include <ATen/Parallel.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "operator.h"

namespace dcn {

DCN_KERNELS(QueryKernels, query)

namespace {

void check_table(const char* name, const Tensor& tensor, IntArrayRef expected) {
  TORCH_CHECK(tensor.sizes() == expected, "query: ", name, " must have shape ", expected, ", got ", tensor.sizes());
  TORCH_CHECK(tensor.scalar_type() == at::kFloat, "query: ", name, " is ", tensor.scalar_type(), ", expected float32");
}

// Checks the positions of the outputs along one axis: the kernel does not check them.
void check_axis(const std::string& name, const Tensor& interval, const Tensor& fraction, int64_t cells) {
  TORCH_CHECK(interval.dim() == 1 && interval.scalar_type() == at::kLong, "query: ", name, " intervals must be a list of int64");
  check_table((name + " fractions").c_str(), fraction, interval.sizes());
  const int64_t* numbers = interval.const_data_ptr<int64_t>();
  TORCH_CHECK(std::is_sorted(numbers, numbers + interval.numel()), "query: ", name, " intervals must ascend");
  TORCH_CHECK(interval.numel() == 0 || (numbers[0] >= 0 && numbers[interval.numel() - 1] <= cells), "query: ", name,
              " intervals must lie between 0 and ", cells);
}

// Pads the hidden values with zeros: their GELU is zero, so they contribute nothing.
Tensor filled(const Tensor& table) {
  const int64_t missing = -table.size(-1) & (Rendering::kHiddenStep - 1);
  return missing ? at::constant_pad_nd(table, {0, missing}).contiguous() : table.contiguous();
}

}  // namespace

Tensor cpu_query(const Tensor& features, const Tensor& corners, const Tensor& shift_y, const Tensor& shift_x, const Tensor& colour,
                 const Tensor& bias, const Tensor& interval_y, const Tensor& fraction_y, const Tensor& interval_x, const Tensor& fraction_x) {
  TORCH_CHECK(features.dim() == 4 && features.size(1) > 0 && features.size(2) > 0 && features.size(3) > 0,
              "query: features must be (N, h, w, C), got ", features.sizes());
  TORCH_CHECK(features.scalar_type() == at::kFloat, "query: unsupported type ", features.scalar_type(), " (float32)");
  Rendering r{};
  r.batch = features.size(0), r.height = features.size(1), r.width = features.size(2), r.channels = features.size(3);
  TORCH_CHECK(colour.dim() == 2, "query: colour must be (3, width), got ", colour.sizes());
  const int64_t hidden = colour.size(1);
  check_table("colour", colour, {3, hidden});
  check_table("bias", bias, {3});
  check_table("corners", corners, {r.channels, 4, hidden});
  check_table("shift_y", shift_y, {r.height + 1, 2, hidden});
  check_table("shift_x", shift_x, {r.width + 1, 2, hidden});
  const Tensor rows = interval_y.contiguous(), columns = interval_x.contiguous();
  const Tensor down = fraction_y.contiguous(), across = fraction_x.contiguous();
  check_axis("y", rows, down, r.height);
  check_axis("x", columns, across, r.width);
  r.out_height = rows.numel(), r.out_width = columns.numel();
  const Tensor cells = features.contiguous(), corner_maps = filled(corners), y = filled(shift_y), x = filled(shift_x), colours = filled(colour);
  const Tensor biases = bias.contiguous();
  Tensor out = at::empty({r.batch, 3, r.out_height, r.out_width}, features.options().memory_format(at::MemoryFormat::Contiguous));
  r.hidden = colours.size(-1);
  r.features = cells.const_data_ptr<float>(), r.corners = corner_maps.const_data_ptr<float>();
  r.shift_y = y.const_data_ptr<float>(), r.shift_x = x.const_data_ptr<float>();
  r.colour = colours.const_data_ptr<float>(), r.bias = biases.const_data_ptr<float>();
  r.interval_y = rows.const_data_ptr<int64_t>(), r.interval_x = columns.const_data_ptr<int64_t>();
  r.fraction_y = down.const_data_ptr<float>(), r.fraction_x = across.const_data_ptr<float>();
  r.out = out.mutable_data_ptr<float>();
  const QueryKernels& k = best_query();
  const int64_t floats = k.scratch(r) + 16;
  at::parallel_for(0, r.tasks(), 1, [&](int64_t begin, int64_t end) {
    const Tensor memory = at::empty({floats}, at::TensorOptions(at::kFloat));
    float* scratch = memory.mutable_data_ptr<float>();
    scratch += (-reinterpret_cast<uintptr_t>(scratch) & 63) / sizeof(float);
    k.run(r, scratch, begin, end);
  });
  return out;
}

}  // namespace dcn
