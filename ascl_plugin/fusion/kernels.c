/* The costly steps of scoring on a CPU, each in one pass: what lies between stays in the caches.
   Arrays are of float, contiguous unless strides (in floats) are given. */

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define COLUMNS 32 /* queries side by side: the space of a call is for so many */
#define PARTS (COLUMNS / LANES)
#define ROWS (LANES == 4 ? 1 : LANES / 4) /* rows of a product at a time: 8 sums, 16 with AVX-512 */

typedef ptrdiff_t size;
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* e^x for x <= 0, to two units in the last place: 2^n by its bits, the rest by a polynomial. */
static inline float exp_below(float x)
{
    x = x < -87.f ? -87.f : x;
    float n = __builtin_rintf(x * 1.44269504088896341f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f; /* ln 2 in two parts */
    float p = 1.f / 5040.f;
    p = p * r + 1.f / 720.f;
    p = p * r + 1.f / 120.f;
    p = p * r + 1.f / 24.f;
    p = p * r + 1.f / 6.f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* Copy keys (n, COLUMNS), times a factor; columns from `count` on are 0. */
static void load(float *to, const float *from, size n, size key, size query, size count, float factor)
{
    if (query == 1 && count == COLUMNS) {
        for (size i = 0; i < n; i++)
            for (int j = 0; j < COLUMNS; j++) to[i * COLUMNS + j] = from[i * key + j] * factor;
        return;
    }
    memset(to, 0, n * COLUMNS * sizeof *to);
    for (size j = 0; j < count; j++)
        for (size i = 0; i < n; i++) to[i * COLUMNS + j] = from[i * key + j * query] * factor;
}

/* Turn logits w (n, COLUMNS) to their softmax over the keys that are real, and add its products
   with `toward` (n, COLUMNS), NULL for the logits themselves, to dots (COLUMNS). */
static void softmax(float *w, const float *toward, size n, const uint8_t *mask, float *dots)
{
    float top[COLUMNS], sum[COLUMNS], dot[COLUMNS];
    for (int j = 0; j < COLUMNS; j++) top[j] = -3.4e38f, sum[j] = dot[j] = 0.f;
    for (size i = 0; i < n; i++)
        if (!mask || mask[i])
            for (int j = 0; j < COLUMNS; j++) {
                float x = w[i * COLUMNS + j];
                top[j] = top[j] > x ? top[j] : x;
            }
    for (size i = 0; i < n; i++) {
        float *row = w + i * COLUMNS;
        if (mask && !mask[i]) {
            memset(row, 0, COLUMNS * sizeof *row);
            continue;
        }
        for (int j = 0; j < COLUMNS; j++) {
            float x = row[j], e = exp_below(x - top[j]);
            row[j] = e;
            sum[j] += e;
            dot[j] += e * (toward ? toward[i * COLUMNS + j] : x);
        }
    }
    for (int j = 0; j < COLUMNS; j++) {
        sum[j] = sum[j] == 0.f ? 0.f : 1.f / sum[j]; /* no key is real: no weight */
        dots[j] += dot[j] * sum[j];
    }
    for (size i = 0; i < n; i++)
        for (int j = 0; j < COLUMNS; j++) w[i * COLUMNS + j] *= sum[j];
}

/* Add sum_m gram[m] w[m], m from `start` to `stop`, to the sums of so many rows. */
static inline __attribute__((always_inline)) void multiply(
    lanes sums[][PARTS], int rows, const float *gram, size n, const float *w, size start, size stop)
{
    lanes s[ROWS][PARTS];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < PARTS; j++) s[i][j] = sums[i][j];
    for (size m = start; m < stop; m++)
        for (int j = 0; j < PARTS; j++) {
            lanes x = *(const lanes *)(w + m * COLUMNS + j * LANES);
            for (int i = 0; i < rows; i++) s[i][j] += x * gram[i * n + m];
        }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < PARTS; j++) sums[i][j] = s[i][j];
}

/* Add w^T G w of `rows` rows from `row` on to norms: G is symmetric, so half of it is read. */
static inline __attribute__((always_inline)) void quadratic_rows(
    int rows, size row, const float *gram, size n, const float *w, lanes norms[PARTS])
{
    lanes sums[ROWS][PARTS];
    memset(sums, 0, sizeof sums);
    multiply(sums, rows, gram + row * n, n, w, 0, row);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < PARTS; j++) sums[i][j] += sums[i][j];
    multiply(sums, rows, gram + row * n, n, w, row, row + rows);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < PARTS; j++)
            norms[j] += sums[i][j] * *(const lanes *)(w + (row + i) * COLUMNS + j * LANES);
}

/* Add w^T G w of every column of w (n, COLUMNS) to norms (COLUMNS). */
static void quadratic(const float *gram, size n, const float *w, float *norms)
{
    lanes sums[PARTS];
    memcpy(sums, norms, sizeof sums);
    size row = 0;
    for (; row + ROWS <= n; row += ROWS) quadratic_rows(ROWS, row, gram, n, w, sums);
    for (; row < n; row++) quadratic_rows(1, row, gram, n, w, sums);
    memcpy(norms, sums, sizeof sums);
}

/* Add w times shares, of the `count` columns that begin at query `start`, to means (items, n): a
   mean is over the places of an item that attends. */
static void average(float *means, const float *w, const float *shares, size n, size start, size count,
                    size places)
{
    for (size from = start, stop; from < start + count; from = stop) {
        size item = from / places;
        stop = (item + 1) * places < start + count ? (item + 1) * places : start + count;
        float own[COLUMNS] = {0.f}; /* shares, 0 for other items */
        for (size j = from; j < stop; j++) own[j - start] = shares[j];
        for (size i = 0; i < n; i++) {
            float sum = 0.f;
#pragma omp simd reduction(+ : sum)
            for (int j = 0; j < COLUMNS; j++) /* nan of another item is not this one's */
                sum += own[j] != 0.f ? w[i * COLUMNS + j] * own[j] : 0.f;
            means[item * n + i] += sum;
        }
    }
}

/* Let `queries` places attend to each of `items` items of n keys.

   logits, toward  (items, heads, n, queries) by strides; toward may be NULL: the logits
   factor          of the logits
   gram            (items, heads, n, n) if apart, else (items, 1, heads n, heads n)
   mask            (items, n), or NULL
   shares          (queries), or NULL: no means
   dots, norms     (items, queries), out
   means           (items, queries / places, heads n), out, 0 before
   space           2 heads n COLUMNS */
void attended(const float *logits, const float *toward, const float *gram, const uint8_t *mask,
              const float *shares, float *dots, float *norms, float *means, float *space,
              size items, size heads, size n, size queries, size places, size apart,
              size item, size head, size key, size query, float factor)
{
    size all = heads * n, block = apart ? n : all;
    for (size b = 0; b < items; b++)
        for (size start = 0; start < queries; start += COLUMNS) {
            size count = queries - start < COLUMNS ? queries - start : COLUMNS;
            float d[COLUMNS] = {0.f}, q[COLUMNS] = {0.f};
            for (size h = 0; h < heads; h++) {
                size at = b * item + h * head + start * query;
                float *w = space + h * n * COLUMNS, *t = toward ? space + all * COLUMNS : NULL;
                load(w, logits + at, n, key, query, count, factor);
                if (t) load(t, toward + at, n, key, query, count, 1.f);
                softmax(w, t, n, mask ? mask + b * n : NULL, d);
            }
            for (size h = 0; h < all; h += block)
                quadratic(gram + (b * all + h) * block, block, space + h * COLUMNS, q);
            memcpy(dots + b * queries + start, d, count * sizeof *d);
            memcpy(norms + b * queries + start, q, count * sizeof *q);
            if (shares)
                average(means + b * (queries / places) * all, space, shares, all, start, count, places);
        }
}

/* cos(v, w) of every image with every text, v = z attended + (1 - z) pooled and z = sigmoid(logits +
   gate); 0 where a vector is 0.

   attended        (images, texts, 2 dim): attended vectors, logits
   words           (texts, images, dim), texts `text` floats apart
   pooled, gate    (images, dim)
   out             (images, texts) */
void gated_cosines(const float *attended, const float *words, const float *pooled, const float *gate,
                   float *out, size images, size texts, size dim, size text, float least)
{
    for (size i = 0; i < images; i++)
        for (size t = 0; t < texts; t++) {
            const float *v = attended + (i * texts + t) * 2 * dim, *logits = v + dim;
            const float *w = words + t * text + i * dim, *p = pooled + i * dim, *g = gate + i * dim;
            float vv = 0.f, vw = 0.f, ww = 0.f;
#pragma omp simd reduction(+ : vv, vw, ww)
            for (size d = 0; d < dim; d++) {
                float x = logits[d] + g[d], e = exp_below(x < 0.f ? x : -x);
                float z = (x < 0.f ? e : 1.f) / (1.f + e);
                float fused = p[d] + z * (v[d] - p[d]);
                vv += fused * fused, vw += fused * w[d], ww += w[d] * w[d];
            }
            float squared = vv * ww;
            if (squared <= 0.f) out[i * texts + t] = 0.f;
            else out[i * texts + t] = vw / __builtin_sqrtf(squared < least ? least : squared);
        }
}
