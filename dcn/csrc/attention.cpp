// Windowed attention on CPUs: arguments, memory, threads and the choice of the kernel.
#include "attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cstdint>

#include "operator.h"

namespace dcn {

extern const AttentionKernels attention_baseline;
#ifdef DCN_X86
extern const AttentionKernels attention_avx2, attention_avx512, attention_avx512bf16;
#endif

namespace {

const AttentionKernels& attention_kernels() {
#ifdef DCN_X86
  switch (instruction_set()) {
    case Level::avx512bf16: return attention_avx512bf16;
    case Level::avx512: return attention_avx512;
    case Level::avx2: return attention_avx2;
    case Level::baseline: break;
  }
#endif
  return attention_baseline;
}

// Checks the arguments (raises one line) and returns sizes and types; no pointers yet.
Attention checked(const Tensor& qkv, const Tensor& bias, int64_t heads, int64_t window, int64_t margin, int64_t shift, double scale) {
  Attention a{};
  TORCH_CHECK(qkv.dim() == 4 && heads > 0 && qkv.size(3) > 0 && qkv.size(3) % (3 * heads) == 0,
              "window_attention: qkv must be (B, H, W, 3 * heads * width), got ", qkv.sizes(), " for ", heads, " heads");
  a.batch = qkv.size(0), a.height = qkv.size(1), a.width = qkv.size(2), a.heads = heads, a.head_width = qkv.size(3) / (3 * heads);
  a.window = window, a.margin = margin, a.shift = shift, a.scale = static_cast<float>(scale);
  TORCH_CHECK(window > 0 && a.height % window == 0 && a.width % window == 0, "window_attention: a map of ", a.height, "x", a.width,
              " is not made of windows of ", window);
  TORCH_CHECK(margin >= 0 && shift >= 0 && shift < window && (margin == 0 || shift == 0),
              "window_attention: margin ", margin, " and shift ", shift, " do not fit a window of ", window);
  TORCH_CHECK(bias.dim() == 3 && bias.size(0) == heads && bias.size(1) == a.queries() && bias.size(2) == a.keys(),
              "window_attention: bias must be (", heads, ", ", a.queries(), ", ", a.keys(), "), got ", bias.sizes());
  TORCH_CHECK(qkv.scalar_type() == at::kFloat || qkv.scalar_type() == at::kBFloat16, "window_attention: unsupported type ", qkv.scalar_type(),
              " (float32 or bfloat16)");
  TORCH_CHECK(bias.scalar_type() == qkv.scalar_type(), "window_attention: bias is ", bias.scalar_type(), " but qkv is ", qkv.scalar_type());
  a.type = qkv.scalar_type() == at::kFloat ? Type::f32 : Type::bf16;
  return a;
}

}  // namespace

Tensor cpu_window_attention(const Tensor& qkv, const Tensor& bias, int64_t heads, int64_t window, int64_t margin, int64_t shift, double scale) {
  Attention a = checked(qkv, bias, heads, window, margin, shift, scale);
  const Tensor tokens = qkv.contiguous(), biases = bias.contiguous();
  Tensor out = at::empty({a.batch, a.height, a.width, heads * a.head_width}, qkv.options().memory_format(at::MemoryFormat::Contiguous));
  a.qkv = tokens.const_data_ptr(), a.bias = biases.const_data_ptr(), a.out = out.mutable_data_ptr();
  const AttentionKernels& k = attention_kernels();
  const int64_t bytes = k.scratch(a) + 64;
  at::parallel_for(0, a.tasks(), 1, [&](int64_t begin, int64_t end) {
    const Tensor memory = at::empty({bytes}, at::TensorOptions(at::kByte));
    char* scratch = static_cast<char*>(memory.mutable_data_ptr());
    scratch += -reinterpret_cast<uintptr_t>(scratch) & 63;
    k.run(a, scratch, begin, end);
  });
  return out;
}

}  // namespace dcn
