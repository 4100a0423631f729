// Products with float weights: row-major, several rows and tokens at once. Included by each kernels_*.cpp.
//
// Every result is one chain of fused multiply-adds a lane over k, then the tree: the blocking below changes
// how often a weight is loaded, never a result.
#pragma once

#include "kernels.hpp"
#include "lanes.hpp"

namespace tritwise::TRITWISE_ISA {

template <DType type>
inline Lanes load_weight(const void* data, std::int64_t index) {
    if constexpr (type == DType::f32) return load(static_cast<const float*>(data) + index);
    if constexpr (type == DType::f16) return load_f16(static_cast<const std::uint16_t*>(data) + index);
    if constexpr (type == DType::bf16) return load_bf16(static_cast<const std::uint16_t*>(data) + index);
}

// R rows by T tokens.
template <DType type, int R, int T>
inline void dense_tile(const DenseMatrix& w, std::int64_t row, const float* x, std::ptrdiff_t x_stride,
                       float* y, std::ptrdiff_t stride) {
    Lanes acc[R][T];
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) acc[r][t] = set1(0.0f);
    for (int k = 0; k < w.k; k += 16) {
        Lanes weight[R];
        for (int r = 0; r < R; ++r) weight[r] = load_weight<type>(w.data, (row + r) * w.k + k);
        for (int t = 0; t < T; ++t) {
            const Lanes input = load(x + t * x_stride + k);
            for (int r = 0; r < R; ++r) acc[r][t] = fma(weight[r], input, acc[r][t]);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int t = 0; t < T; ++t) y[t * stride + row + r] = sum(acc[r][t]);
}

template <DType type, int T>
inline void dense_rows(const DenseMatrix& w, std::int64_t begin, std::int64_t end, const float* x,
                       std::ptrdiff_t x_stride, float* y, std::ptrdiff_t stride) {
    constexpr int R = T == 1 ? 2 * dense_row_tile : dense_row_tile;
    std::int64_t row = begin;
    for (; row + R <= end; row += R) dense_tile<type, R, T>(w, row, x, x_stride, y, stride);
    for (; row < end; ++row) dense_tile<type, 1, T>(w, row, x, x_stride, y, stride);
}

template <DType type>
inline void dense_typed(const DenseMatrix& w, std::int64_t row_begin, std::int64_t row_end, const float* x,
                        std::ptrdiff_t x_stride, int m, float* y, std::ptrdiff_t stride) {
    constexpr int T = dense_token_tile;
    // Rows in panels of about 256 KiB: a panel stays in the L2 cache while all tokens pass over it.
    const std::int64_t panel = m == 1 ? row_end - row_begin : (std::int64_t{1} << 16) / w.k / 8 * 8 + 8;
    for (std::int64_t begin = row_begin; begin < row_end; begin += panel) {
        const std::int64_t end = begin + panel < row_end ? begin + panel : row_end;
        int t = 0;
        for (; t + T <= m; t += T)
            dense_rows<type, T>(w, begin, end, x + t * x_stride, x_stride, y + t * stride, stride);
        for (; t + 2 <= m; t += 2)
            dense_rows<type, 2>(w, begin, end, x + t * x_stride, x_stride, y + t * stride, stride);
        for (; t < m; ++t)
            dense_rows<type, 1>(w, begin, end, x + t * x_stride, x_stride, y + t * stride, stride);
    }
}

inline void dense(const DenseMatrix& w, int row_begin, int row_end, const float* x, std::ptrdiff_t x_stride,
                  int m, float* y, std::ptrdiff_t stride) {
    switch (w.type) {
        case DType::f32: return dense_typed<DType::f32>(w, row_begin, row_end, x, x_stride, m, y, stride);
        case DType::f16: return dense_typed<DType::f16>(w, row_begin, row_end, x, x_stride, m, y, stride);
        case DType::bf16: return dense_typed<DType::bf16>(w, row_begin, row_end, x, x_stride, m, y, stride);
    }
}

inline void load_row(const DenseMatrix& w, std::int64_t row, float* out) {
    for (int k = 0; k < w.k; k += 16) {
        switch (w.type) {
            case DType::f32: store(out + k, load_weight<DType::f32>(w.data, row * w.k + k)); break;
            case DType::f16: store(out + k, load_weight<DType::f16>(w.data, row * w.k + k)); break;
            case DType::bf16: store(out + k, load_weight<DType::bf16>(w.data, row * w.k + k)); break;
        }
    }
}

}  // namespace tritwise::TRITWISE_ISA
