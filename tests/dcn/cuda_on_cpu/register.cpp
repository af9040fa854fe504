// The CUDA source as an operator of its own, for CPU tensors: torch.ops.dcn_cuda_on_cpu.
#include <torch/library.h>

#include "cuda.h"
#include "operator.h"

TORCH_LIBRARY(dcn_cuda_on_cpu, library) {
  library.def(
      "forward(Tensor input, Tensor offset, Tensor weight, Tensor? bias, Tensor? mask, int[2] stride, int[2] padding, "
      "int[2] dilation) -> Tensor");
  library.def(
      "backward(Tensor grad, Tensor input, Tensor offset, Tensor weight, Tensor? mask, int[2] stride, int[2] padding, "
      "int[2] dilation, bool[4] wanted) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def("shuffle(int seed) -> ()", [](int64_t seed) { cuda_on_cpu::order = seed; });
  library.def("launches() -> int", [] { return cuda_on_cpu::launches; });
}

TORCH_LIBRARY_IMPL(dcn_cuda_on_cpu, CPU, library) {
  library.impl("forward", dcn::cuda_forward);
  library.impl("backward", dcn::cuda_backward);
}
