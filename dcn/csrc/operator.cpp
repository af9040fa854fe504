// Schemas and kernels per device. Shapes for tracing, autograd and autocast are in compiled.py.
#include "operator.h"

#include <torch/library.h>

TORCH_LIBRARY(dcn, library) {
  library.def(
      "deform_conv2d(Tensor input, Tensor offset, Tensor weight, Tensor? bias, Tensor? mask, int[2] stride, int[2] padding, "
      "int[2] dilation) -> Tensor");
  library.def(
      "deform_conv2d_backward(Tensor grad, Tensor input, Tensor offset, Tensor weight, Tensor? mask, int[2] stride, int[2] padding, "
      "int[2] dilation, bool[4] wanted) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("window_attention(Tensor qkv, Tensor bias, int heads, int window, int margin, int shift, float scale) -> Tensor");
  library.def(
      "query(Tensor features, Tensor corners, Tensor shift_y, Tensor shift_x, Tensor colour, Tensor bias, Tensor interval_y, "
      "Tensor fraction_y, Tensor interval_x, Tensor fraction_x) -> Tensor");
  library.def("add_moved(Tensor(a!) total, Tensor(b!) weights, Tensor image, Tensor motion, Tensor weight) -> ()");
}

TORCH_LIBRARY_IMPL(dcn, CPU, library) {
  library.impl("deform_conv2d", dcn::cpu_forward);
  library.impl("deform_conv2d_backward", dcn::cpu_backward);
  library.impl("window_attention", dcn::cpu_window_attention);
  library.impl("query", dcn::cpu_query);
  library.impl("add_moved", dcn::cpu_add_moved);
}

#ifdef DCN_CUDA
TORCH_LIBRARY_IMPL(dcn, CUDA, library) {
  library.impl("deform_conv2d", dcn::cuda_forward);
  library.impl("deform_conv2d_backward", dcn::cuda_backward);
}
#endif
