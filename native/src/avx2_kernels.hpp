// What both kernels of 256 bits share, with FMA and F16C. A kernel file defines TRITWISE_ISA and, in that namespace,
//
//     constexpr bool vnni      whether vpdpbusd multiplies unsigned by signed bytes and adds four in int32; else vpmaddubsw
//                              adds pairs in int16 with saturation, so every use states why its sums stay inside int16
//     __m256i dot(acc, u, s)   vpdpbusd, called where vnni is true
//
// Three weights in five bits (native/README.md): a triple v = w0 + 3 w1 + 9 w2 is a sign and |v| in a nibble, and a ymm
// holds one triple, or two, of each of the 32 rows of a group. For few tokens the product of a triple is looked up by
// vpshufb among 14 sums of three inputs; for more the weights are unpacked and multiplied.
#pragma once

#include "kernels.hpp"

namespace tritwise::TRITWISE_ISA {
constexpr int query_tile = 4;      // 4 queries x 2 vectors x 2 registers: all 16 registers
constexpr int attention_tile = 4;  // vectors of values or scores in work
constexpr int dense_row_tile = 2;  // 2 rows x 2 tokens x 2 registers: 8 accumulators
constexpr int dense_token_tile = 2;
}  // namespace tritwise::TRITWISE_ISA

#include "attention_kernels.hpp"
#include "by_input_avx2.hpp"
#include "cache_kernels.hpp"
#include "dense_kernels.hpp"
#include "float_kernels.hpp"
#include "head_products_avx2.hpp"
// Needs the products above.
#include "head_kernels.hpp"
#include "sampling_kernels.hpp"

namespace tritwise::TRITWISE_ISA {

constexpr int prefetch_distance = 4096;  // bytes ahead; the hardware prefetcher stops at 4 KiB pages

static inline __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

static inline __m256i broadcast4(const std::int8_t* p) {
    std::int32_t word;
    std::memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
}

static inline __m256i pairs_to_int32(__m256i sums) { return _mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

constexpr int block = block_bytes(TernaryPacking::three_in_five_bits);
constexpr int triples = 8;  // of a row in a block
constexpr int sizes = 14;   // 0..13, of |w0 + 3 w1 + 9 w2|

// Weight `place` of the triple that is v, -13..13.
constexpr int weight_of(int v, int place) {
    for (; place; --place) v = (v + 13) / 3 - 4;
    return (v + 13) % 3 - 1;
}

// A sum of three inputs is |t| <= 3 * 128 and is looked up as two signed bytes, t = 28 high + low.
constexpr int digit = 28, reciprocal = 1170;  // vpmulhrsw by 1170 is round(t / 28.007)
constexpr int high_of(int t) { return (t * reciprocal + (1 << 14)) >> 15; }
constexpr int magnitude(int v) { return v < 0 ? -v : v; }
constexpr int largest_digit() {
    int largest = 0;
    for (int t = -384; t <= 384; ++t) {
        const int high = magnitude(high_of(t)), low = magnitude(t - digit * high_of(t));
        largest = largest > high ? largest : high;
        largest = largest > low ? largest : low;
    }
    return largest;
}
static_assert(triples * largest_digit() <= 127);  // so the digits of a block are added in bytes
constexpr int sums_blocks = 10;                   // and the sums of ten blocks in int16
static_assert(sums_blocks * triples * 384 <= 32767);

struct Tables {
    // For making tables: a ymm holds sizes 0..7, or 8..15, of one triple and of the next.
    alignas(32) std::int8_t first_two[2][32], third[2][32];  // weights, for vpmaddubsw with pairs of inputs
    alignas(32) std::int16_t correction[2][16];              // inputs are taken as x + 128
    alignas(32) std::int8_t spread[4][32];   // pair 2q to the lower half, 2q + 1 to the upper one
    alignas(32) std::uint8_t fields[2][32];  // w + 1 in bits 1 0, 3 2 and 5 4; the other: of -v
};

constexpr Tables make_tables() {
    Tables tables{};
    for (int half = 0; half < 2; ++half)
        for (int i = 0; i < 16; ++i) {
            const int v = half * 8 + i % 8;
            if (v >= sizes) continue;
            for (int j = 0; j < 2; ++j)
                tables.first_two[half][2 * i + j] = static_cast<std::int8_t>(weight_of(v, j));
            tables.third[half][2 * i] = static_cast<std::int8_t>(weight_of(v, 2));
            tables.correction[half][i] =
                static_cast<std::int16_t>(-128 * (weight_of(v, 0) + weight_of(v, 1) + weight_of(v, 2)));
        }
    for (int q = 0; q < 4; ++q)
        for (int i = 0; i < 32; ++i)
            tables.spread[q][i] = static_cast<std::int8_t>((2 * q + i / 16) * 2 + i % 2);
    for (int sign = 0; sign < 2; ++sign)
        for (int i = 0; i < 32; ++i)
            if (const int v = i % 16; v < sizes)
                for (int j = 0; j < 3; ++j)
                    tables.fields[sign][i] |=
                        static_cast<std::uint8_t>((weight_of(sign ? -v : v, j) + 1) << 2 * j);
    return tables;
}

static constexpr Tables tables = make_tables();

static inline void store256(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

static inline void write(const ProductOutput& out, const float* row_scale, int row, int token, __m256i acc,
                         float x_scale) {
    const std::ptrdiff_t at = out.at(token, row);
    if (out.acc) store256(out.acc + at, acc);
    if (out.y) {
        const __m256 scale = _mm256_mul_ps(_mm256_set1_ps(x_scale), _mm256_loadu_ps(row_scale + row));
        _mm256_storeu_ps(out.y + at, _mm256_mul_ps(_mm256_cvtepi32_ps(acc), scale));
    }
}

// Eight codes, the second four `step` bytes behind the first.
static inline __m128i load_codes(const std::int8_t* p, std::int64_t step) {
    std::int32_t a, b;
    std::memcpy(&a, p, 4);
    std::memcpy(&b, p + step, 4);
    return _mm_insert_epi32(_mm_cvtsi32_si128(a), b, 1);
}

// The sums of a block's triples by size, for one token: [8 triples / 2][low, high][2 triples][16 sizes].
// A triple takes 2 shuffles, 2 vpmaddubsw, 2 adds, 1 vpmulhrsw, 1 vpmullw, 1 subtraction, 1 vpacksswb, 1
// store.
static inline void sums_of_block(const std::int8_t* codes, std::int64_t step, std::uint8_t* to) {
    const __m128i flip = _mm_set1_epi8(-128);  // to x + 128, unsigned
    const __m128i x0 = _mm_xor_si128(load_codes(codes, step), flip),
                  x1 = _mm_xor_si128(load_codes(codes + 2 * step, step), flip),
                  x2 = _mm_xor_si128(load_codes(codes + 4 * step, step), flip);
    const __m256i first_two = _mm256_broadcastsi128_si256(_mm_unpacklo_epi8(x0, x1)),
                  third = _mm256_broadcastsi128_si256(_mm_unpacklo_epi8(x2, _mm_setzero_si128()));
    for (int q = 0; q < 4; ++q, to += 64) {
        const __m256i spread = load256(tables.spread[q]), a = _mm256_shuffle_epi8(first_two, spread),
                      b = _mm256_shuffle_epi8(third, spread);
        __m256i low[2], high[2];
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            const __m256i sums =
                _mm256_add_epi16(_mm256_add_epi16(_mm256_maddubs_epi16(a, load256(tables.first_two[half])),
                                                  _mm256_maddubs_epi16(b, load256(tables.third[half]))),
                                 load256(tables.correction[half]));
            high[half] = _mm256_mulhrs_epi16(sums, _mm256_set1_epi16(reciprocal));
            low[half] = _mm256_sub_epi16(sums, _mm256_mullo_epi16(high[half], _mm256_set1_epi16(digit)));
        }
        store256(to, _mm256_packs_epi16(low[0], low[1]));
        store256(to + 32, _mm256_packs_epi16(high[0], high[1]));
    }
}

static inline __m256i table16(const std::uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

static inline void prefetch_block(const std::uint8_t* p) {
    for (int i = 0; i < block; i += 64) _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T0);
}

// `count` tokens from `token` on by the rows of groups [begin, end), with sums_of_block() of [K/24][count].
// 160 bytes, 768 weights, take 6 loads, 10 logic, 5 shifts, 7 adds, 3 prefetches, and for each token 16
// loads, 16 vpshufb, 16 vpsignb, 18 adds, 2 unpacks, 2 vpmaddubsw.
template <int count>
static void look_up(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x, int token,
                    const ProductOutput& out, const std::uint8_t* sums) {
    const __m256i nibble = _mm256_set1_epi8(15), one = _mm256_set1_epi8(1),
                  digits = _mm256_set1_epi16(digit << 8 | 1);
    const std::int64_t blocks = w.k / block_inputs(TernaryPacking::three_in_five_bits);
    const std::uint8_t* p = w.packed + static_cast<std::int64_t>(begin) * blocks * block;
    for (int group = begin; group < end; ++group) {
        __m256i acc[count][4] = {};
        const std::uint8_t* table = sums;
        for (std::int64_t first = 0; first < blocks; first += sums_blocks) {
            const std::int64_t last = first + sums_blocks < blocks ? first + sums_blocks : blocks;
            __m256i narrow[count][2];
#pragma GCC unroll 4
            for (int t = 0; t < count; ++t) narrow[t][0] = narrow[t][1] = _mm256_setzero_si256();
            for (std::int64_t b = first; b < last; ++b, p += block, table += count * 256) {
                prefetch_block(p + prefetch_distance);
                // Bit 7 of a byte is the sign of the triple in work, and vpsignb must not see a zero: a one
                // follows the seven bits that move up, and the eighth is taken by itself.
                __m256i sign = _mm256_or_si256(load256(p), one);
                __m256i low[count], high[count];
#pragma GCC unroll 4
                for (int t = 0; t < count; ++t) low[t] = high[t] = _mm256_setzero_si256();
#pragma GCC unroll 8
                for (int i = 0; i < triples; ++i) {
                    __m256i index = load256(p + 32 + i / 2 * 32);
                    if (i % 2) index = _mm256_srli_epi16(index, 4);
                    index = _mm256_and_si256(index, nibble);
                    if (i == triples - 1) sign = _mm256_or_si256(_mm256_slli_epi16(load256(p), 7), one);
#pragma GCC unroll 4
                    for (int t = 0; t < count; ++t) {
                        const std::uint8_t* of = table + t * 256 + i / 2 * 64 + i % 2 * 16;
                        low[t] = _mm256_add_epi8(
                            low[t], _mm256_sign_epi8(_mm256_shuffle_epi8(table16(of), index), sign));
                        high[t] = _mm256_add_epi8(
                            high[t], _mm256_sign_epi8(_mm256_shuffle_epi8(table16(of + 32), index), sign));
                        // Otherwise GCC looks everything up first, and half of it goes through memory.
                        __asm__ volatile("" : "+x"(low[t]), "+x"(high[t]));
                    }
                    sign = _mm256_add_epi8(sign, sign);
                    __asm__ volatile("" : "+x"(sign));
                }
#pragma GCC unroll 4
                for (int t = 0; t < count; ++t) {
                    narrow[t][0] = _mm256_add_epi16(
                        narrow[t][0], _mm256_maddubs_epi16(digits, _mm256_unpacklo_epi8(low[t], high[t])));
                    narrow[t][1] = _mm256_add_epi16(
                        narrow[t][1], _mm256_maddubs_epi16(digits, _mm256_unpackhi_epi8(low[t], high[t])));
                }
            }
            // Rows 0..7 and 16..23 lie in one, 8..15 and 24..31 in the other.
            for (int t = 0; t < count; ++t)
                for (int i = 0; i < 4; ++i) {
                    const __m256i both = narrow[t][i % 2];
                    const __m128i rows =
                        i < 2 ? _mm256_castsi256_si128(both) : _mm256_extracti128_si256(both, 1);
                    acc[t][i] = _mm256_add_epi32(acc[t][i], _mm256_cvtepi16_epi32(rows));
                }
        }
        for (int t = 0; t < count; ++t)
            for (int i = 0; i < 4; ++i)
                write(out, w.row_scale, group * group_rows + 8 * i, token + t, acc[t][i], x.scale[token + t]);
    }
}

constexpr int look_up_tokens = 8;  // up to these: 8 K of scratch for their codes, 8 * 32 / 3 K for tables

// Tables of `count` tokens of a quad.
static std::uint8_t* make_sums(const std::int8_t* codes, std::int64_t step, int count, std::int64_t blocks,
                               const std::uint8_t* rows, std::uint8_t* to) {
    for (std::int64_t b = 0; b < blocks; ++b, rows += block, codes += 6 * step) {
        prefetch_block(rows);
        for (int t = 0; t < count; ++t, to += 256) sums_of_block(codes + 4 * t, step, to);
    }
    return to;
}

// The tables of x, quad by quad, behind the codes that they were made from: a thread is given a product in
// several runs of rows, and makes them once. While it does, the rows that come first are fetched.
struct Kept {
    std::int64_t m, k;  // 0: none
};

static const std::uint8_t* sums_of(const QuantisedRows& x, const std::uint8_t* rows, std::uint8_t* scratch) {
    auto* kept = reinterpret_cast<Kept*>(scratch);
    auto* codes = reinterpret_cast<std::int8_t*>(scratch + 64);
    const std::int8_t* source = x.m == 1 ? x.codes : x.quads;
    const std::int64_t bytes = x.m == 1 ? x.k : (x.m + quad - 1) / quad * quad * std::int64_t{x.k};
    std::uint8_t *sums = scratch + 64 + (bytes + 63) / 64 * 64, *to = sums;
    if (kept->m == x.m && kept->k == x.k && !std::memcmp(codes, source, static_cast<std::size_t>(bytes)))
        return sums;
    *kept = {x.m, x.k};
    std::memcpy(codes, source, static_cast<std::size_t>(bytes));
    const std::int64_t blocks = x.k / block_inputs(TernaryPacking::three_in_five_bits);
    if (x.m == 1) {
        make_sums(source, 4, 1, blocks, rows, to);
    } else {
        for (int token = 0; token < x.m; token += quad, source += quad * x.k)
            to = make_sums(source, 4 * quad, x.m - token < quad ? x.m - token : quad, blocks, rows, to);
    }
    return sums;
}

// Some blocks of 32 rows to bytes w + 1, [steps][4 vectors][8 rows][4 inputs]: vector i holds rows 4i .. 4i+3
// and 16+4i .. 16+4i+3. 384 weights take 5 loads, 10 shifts, 16 AND, 8 vpshufb, 4 blends, 4 adds, 8 unpacks,
// 12 stores.
static void unpack_blocks(const std::uint8_t* p, std::int64_t blocks, std::uint8_t* panel) {
    const __m256i nibble = _mm256_set1_epi8(15), mask = _mm256_set1_epi8(3);
    const __m256i positive = load256(tables.fields[0]), negative = load256(tables.fields[1]);
    for (std::int64_t b = 0; b < blocks; ++b, p += block, panel += 6 * 128) {
        __m256i sign = load256(p);
        for (int half = 0; half < 2; ++half) {
            __m256i v[4];
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                __m256i index = load256(p + 32 + (half * 4 + i) / 2 * 32);
                if (i % 2) index = _mm256_srli_epi16(index, 4);
                index = _mm256_and_si256(index, nibble);
                v[i] = _mm256_blendv_epi8(_mm256_shuffle_epi8(positive, index),
                                          _mm256_shuffle_epi8(negative, index), sign);
                sign = _mm256_add_epi8(sign, sign);
            }
            const __m256i low01 = _mm256_unpacklo_epi8(v[0], v[1]), high01 = _mm256_unpackhi_epi8(v[0], v[1]),
                          low23 = _mm256_unpacklo_epi8(v[2], v[3]), high23 = _mm256_unpackhi_epi8(v[2], v[3]);
            const __m256i rows[4] = {_mm256_unpacklo_epi16(low01, low23), _mm256_unpackhi_epi16(low01, low23),
                                     _mm256_unpacklo_epi16(high01, high23),
                                     _mm256_unpackhi_epi16(high01, high23)};
#pragma GCC unroll 4
            for (int i = 0; i < 4; ++i) {
                std::uint8_t* to = panel + half * 128 + 32 * i;
                store256(to, _mm256_and_si256(rows[i], mask));
                store256(to + 256, _mm256_and_si256(_mm256_srli_epi16(rows[i], 2), mask));
                store256(to + 512, _mm256_and_si256(_mm256_srli_epi16(rows[i], 4), mask));
            }
        }
    }
}

// A panel is 20 blocks, 15 KiB. Two times 60 steps: 60 * 2 * 2 * 128 = 30720 stays inside int16.
constexpr int panel_blocks = 20, panel_steps = 6 * panel_blocks, narrow_steps = 60;

// acc += fields x inputs, in pairs. Written out, because GCC would compute all products of a step first, and
// accumulators would go through memory.
static inline void multiply_add(__m256i& acc, __m256i fields, __m256i inputs) {
    __m256i products;
    __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
            : "+x"(acc), "=&x"(products)
            : "x"(fields), "x"(inputs));
}

// 16 rows by 4 tokens, added to sums [4 tokens][32 rows]; the steps are even. Per 64 bytes: 2 loads, 4 broadcasts, 8
// vpmaddubsw, 8 adds.
__attribute__((noinline)) static void panel_tile(const std::uint8_t* panel, std::int64_t steps,
                                                 const std::int8_t* codes, std::int32_t* sums) {
    for (std::int64_t begin = 0; begin < steps; begin += narrow_steps) {
        const std::int64_t count = steps - begin < narrow_steps ? steps - begin : narrow_steps;
        __m256i narrow[2][4];
#pragma GCC unroll 4
        for (int t = 0; t < 4; ++t) narrow[0][t] = narrow[1][t] = _mm256_setzero_si256();
        for (const std::uint8_t* stop = panel + count * 128; panel != stop; panel += 256, codes += 8 * quad) {
#pragma GCC unroll 2
            for (int step = 0; step < 2; ++step) {
                const __m256i a = load256(panel + step * 128), b = load256(panel + step * 128 + 32);
#pragma GCC unroll 4
                for (int t = 0; t < 4; ++t) {
                    const __m256i inputs = broadcast4(codes + 4 * quad * step + 4 * t);
                    multiply_add(narrow[0][t], a, inputs);
                    multiply_add(narrow[1][t], b, inputs);
                }
            }
        }
#pragma GCC unroll 4
        for (int t = 0; t < 4; ++t)
#pragma GCC unroll 2
            for (int i = 0; i < 2; ++i) {
                std::int32_t* to = sums + t * group_rows + 8 * i;
                store256(to, _mm256_add_epi32(load256(to), pairs_to_int32(narrow[i][t])));
            }
    }
}

// The same with vpdpbusd, 32 rows by T tokens whose codes lie 4 * quad bytes a step. Per 128 bytes: 4 loads, T broadcasts,
// 4 T vpdpbusd.
template <int T>
static inline void dot_tile(const std::uint8_t* panel, std::int64_t steps, const std::int8_t* const* codes,
                            std::int32_t* sums) {
    __m256i acc[4][T];
#pragma GCC unroll 3
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) acc[i][t] = load256(sums + t * group_rows + 8 * i);
    const std::int8_t* const of[3] = {codes[0], codes[T > 1 ? 1 : 0], codes[T > 2 ? 2 : 0]};
    for (std::int64_t at = 0; at < steps * 4 * quad; at += 4 * quad, panel += 128) {
        __m256i inputs[T];
#pragma GCC unroll 3
        for (int t = 0; t < T; ++t) inputs[t] = broadcast4(of[t] + at);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            const __m256i fields = load256(panel + 32 * i);
#pragma GCC unroll 3
            for (int t = 0; t < T; ++t) acc[i][t] = dot(acc[i][t], fields, inputs[t]);
        }
    }
#pragma GCC unroll 3
    for (int t = 0; t < T; ++t)
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) store256(sums + t * group_rows + 8 * i, acc[i][t]);
}

// `quads` begins at the panel's first input.
static void dot_tiles(const std::uint8_t* panel, std::int64_t steps, const std::int8_t* quads, std::int64_t k, int tokens,
                      std::int32_t* sums) {
    for (int token = 0; token < tokens; token += 3, sums += 3 * group_rows) {
        const std::int8_t* codes[3];
        for (int t = 0; t < 3; ++t) codes[t] = quads + (token + t) / quad * quad * k + (token + t) % quad * 4;
        if (tokens - token >= 3) dot_tile<3>(panel, steps, codes, sums);
        else if (tokens - token == 2) dot_tile<2>(panel, steps, codes, sums);
        else dot_tile<1>(panel, steps, codes, sums);
    }
}

// Panel by panel: each is unpacked into the first-level cache for all tokens, whose sums wait behind it.
static void ternary_panels(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                           const ProductOutput& out, std::uint8_t* scratch) {
    *reinterpret_cast<Kept*>(scratch) = {};
    std::uint8_t* panel = scratch + 64;
    auto* sums = reinterpret_cast<std::int32_t*>(panel + panel_steps * 128);
    const std::int64_t blocks = w.k / block_inputs(TernaryPacking::three_in_five_bits);
    const int tokens = (x.m + quad - 1) / quad * quad;
    for (int group = begin; group < end; ++group) {
        const std::uint8_t* p = w.packed + static_cast<std::int64_t>(group) * blocks * block;
        std::memset(sums, 0, sizeof(std::int32_t) * group_rows * static_cast<std::size_t>(tokens));
        for (std::int64_t first = 0; first < blocks; first += panel_blocks) {
            const std::int64_t count = blocks - first < panel_blocks ? blocks - first : panel_blocks;
            if (w.by_input) unpack_inputs<true>(w, group, first * 24, count * 24, panel);
            else unpack_blocks(p + first * block, count, panel);
            const std::int8_t* quads = x.quads + first * 24 * quad;
            if constexpr (vnni) {
                dot_tiles(panel, 6 * count, quads, w.k, x.m, sums);
                continue;
            }
            for (int token = 0; token < tokens; token += quad)
                for (int half = 0; half < 2; ++half)
                    panel_tile(panel + half * 64, 6 * count, quads + static_cast<std::int64_t>(token) * w.k,
                               sums + token * group_rows + half * 16);
        }
        for (int token = 0; token < x.m; ++token)
            for (int half = 0; half < 2; ++half) {
                // Panels hold w + 1: sum x (w + 1) - sum x = sum x w.
                const __m256i x_sum = _mm256_set1_epi32(x.sum[token]);
                const std::int32_t* from = sums + token * group_rows + half * 16;
                const __m256i a = _mm256_sub_epi32(load256(from), x_sum),
                              b = _mm256_sub_epi32(load256(from + 8), x_sum);
                const int row = group * group_rows + half * 8;
                write(out, w.row_scale, row, token, _mm256_permute2x128_si256(a, b, 0x20), x.scale[token]);
                write(out, w.row_scale, row + 16, token, _mm256_permute2x128_si256(a, b, 0x31),
                      x.scale[token]);
            }
    }
}

static void ternary(const TernaryMatrix& w, int begin, int end, const QuantisedRows& x,
                    const ProductOutput& out, std::uint8_t* scratch) {
    if (w.by_input || x.m > look_up_tokens) return ternary_panels(w, begin, end, x, out, scratch);
    const std::int64_t blocks = w.k / block_inputs(TernaryPacking::three_in_five_bits);
    const std::uint8_t* sums = sums_of(x, w.packed + begin * blocks * block, scratch);
    for (int token = 0; token < x.m; token += quad, sums += blocks * quad * 256) {
        const int left = x.m - token;
        const auto run = left == 1   ? look_up<1>
                         : left == 2 ? look_up<2>
                         : left == 3 ? look_up<3>
                                     : look_up<quad>;
        run(w, begin, end, x, token, out, sums);
    }
}

// Without vpdpbusd a panel also widens its sums every 60 steps.
static std::int64_t multiply(std::int64_t rounds, std::uint64_t* sink) {
    constexpr int chains = vnni ? 12 : 8;
    __m256i acc[chains], a = _mm256_set1_epi8(2), x = _mm256_set1_epi8(static_cast<char>(*sink));
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) acc[i] = _mm256_setzero_si256();
    for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < chains; ++i) {
            __asm__("" : "+x"(acc[i]));  // equal chains would be computed once
            if constexpr (vnni) acc[i] = dot(acc[i], a, x);
            else multiply_add(acc[i], a, x);
        }
    }
    std::uint64_t words[4];
#pragma GCC unroll 12
    for (int i = 0; i < chains; ++i) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), acc[i]);
        for (std::uint64_t word : words) *sink ^= word;
    }
    return rounds * chains * 32;
}

static std::uint64_t read(const void* data, std::size_t size) {
    const auto* p = static_cast<const char*>(data);
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (std::size_t i = 0; i + 128 <= size; i += 128) {
        _mm_prefetch(p + i + prefetch_distance, _MM_HINT_T0);
        _mm_prefetch(p + i + prefetch_distance + 64, _MM_HINT_T0);
        a = _mm256_xor_si256(a, load256(p + i));
        b = _mm256_xor_si256(b, load256(p + i + 32));
        c = _mm256_xor_si256(c, load256(p + i + 64));
        d = _mm256_xor_si256(d, load256(p + i + 96));
    }
    std::uint64_t words[4], result = 0;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words),
                        _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)));
    for (std::uint64_t word : words) result ^= word;
    return result;
}

static constexpr Kernels make_table(const char* name) {
    return {
        .name = name,
        .packing = TernaryPacking::three_in_five_bits,
        .query_tile = query_tile,
        .ternary = ternary,
        .list_inputs = list_inputs,
        .add_inputs = add_inputs,
        .collect_inputs = collect_inputs,
        .dense = dense,
        .rms_norm = rms_norm,
        .quantise = quantise,
        .quantise_planes = quantise_planes,
        .silu_gate = silu_gate,
        .relu2_gate = relu2_gate,
        .add = add,
        .rotate = rotate,
        .load_row = load_row,
        .attention = attention,
        .merge_attention = merge_attention,
        .cache_position = cache_position,
        .sampling = sampling_kernels,
        .head8 = head8,
        .coarse = coarse,
        .exact_sums = exact_sums,
        .head4 = head4,
        .best_of = best_of,
        .split_row = split_row,
        .chunk_row = chunk_row,
        .half_row = half_row,
        .all_finite = all_finite,
        .read = read,
        .multiply = multiply,
    };
}

}  // namespace tritwise::TRITWISE_ISA
