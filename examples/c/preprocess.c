/* Preprocessing version 2 of capsule-edge in C99: docs/preprocessing.md, section by section.
 *
 *     cc -std=c99 -O2 preprocess.c -o preprocess && ./preprocess < docs/preprocessing_vectors.json
 *
 * Reads cases, one a line, makes their planes, and prints the FNV-1a checksum of each model input. Exits with 1 if a
 * case names another checksum. The planes of a case with the content "given" follow its line as bytes. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct plane { int width, height; uint8_t *samples; };
struct filter { int taps, stride, *first; int64_t *weights; }; /* a row of weights starts every ``stride`` */
struct box { int left, top, width, height; };
struct colour { int offset, luma, red_cr, green_cr, green_cb, blue_cb; };

static const struct colour COLOURS[10][2] = { /* by matrix: limited range, full range */
    [1] = {{8192, 9539, 14686, -4366, -1747, 17305}, {0, 8192, 12901, -3835, -1534, 15201}},
    [4] = {{8192, 9539, 13056, -6639, -3095, 16600}, {0, 8192, 11469, -5831, -2719, 14582}},
    [5] = {{8192, 9539, 13075, -6660, -3209, 16525}, {0, 8192, 11485, -5850, -2819, 14516}},
    [7] = {{8192, 9539, 14697, -4445, -2113, 17029}, {0, 8192, 12911, -3904, -1856, 14959}},
    [9] = {{8192, 9539, 13752, -5328, -1535, 17545}, {0, 8192, 12080, -4680, -1348, 15412}},
};

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    return memory ? memory : (fputs("error: out of memory\n", stderr), exit(1), NULL);
}

static int clamp(int value, int largest) { return value < 0 ? 0 : value > largest ? largest : value; }
static int divide(int length, int shift) { return (length + (1 << shift) - 1) >> shift; }
static uint8_t to_level(int64_t sum) { return sum < 0 || sum >> 31 ? 0 : sum >> 30 ? 255 : (uint8_t)(sum >> 22); }

/* Find the overlaps of target pixel i of m with source pixels, from the returned one on; 2^54 >> k is a whole one. */
static int find_overlaps(int64_t *row, int taps, int64_t n, int m, int64_t i, int k)
{
    int64_t step = ((n << 16) + m / 2) / m;
    if (n <= m) { /* grow: interpolate between two pixels */
        int64_t centre = step / 2 - 32768 + i * step, first = centre < 0 ? -1 : centre / 65536;
        row[1] = (centre - first * 65536) << 38;
        row[0] = (INT64_C(65536) << 38) - row[1];
        return (int)first;
    }
    int64_t centre = (2 * i + 1) * step - 65536, start = centre - INT64_C(65536) * (taps - 2);
    int64_t first = start < 0 ? 0 : start / 131072;
    for (int j = 0; j < taps; j++) {
        int64_t away = (first + j) * 131072 - centre, distance = (away < 0 ? -away : away) * 8192 * m / n;
        int64_t overlap = (INT64_C(1) << 45) + ((1 << 29) - distance) * step;
        row[j] = (overlap < 0 ? 0 : overlap > INT64_C(1) << 46 ? INT64_C(1) << 46 : overlap) << (8 - k);
    }
    return (int)first;
}

/* Move what lies beyond the edges to the outermost pixels; scale to the sum ``one``, carrying the error of rounding. */
static void normalise(int64_t *row, int taps, int first, int n, int64_t one)
{
    int64_t sum = 0, error = 0;
    for (int j = 0; j < taps - 1 && first + j < 0; j++)
        row[j + 1] += row[j], row[j] = 0;
    for (int j = taps - 1; j > 0 && first + j >= n; j--)
        row[j - 1] += row[j], row[j] = 0;
    for (int j = 0; j < taps; j++)
        sum += row[j];
    int64_t unit = (sum + one / 2) / one;
    for (int j = 0; j < taps; j++) {
        int64_t exact = row[j] + error;
        row[j] = (exact + unit / 2) / unit;
        error = exact - row[j] * unit;
    }
}

static struct filter make_filter(int n, int m, int64_t one)
{
    int most = n <= m ? 2 : 1 + (n + m - 1) / m, k = 0;
    struct filter f = {0, most, allocate(m, sizeof *f.first), allocate((size_t)m * most, sizeof *f.weights)};
    while (n / m >> (k + 1))
        k++;
    int64_t sum, negligible = INT64_C(36028797018963) >> k; /* 0.002 of a pixel */
    int64_t *row = allocate(2 * most, sizeof *row); /* its second half stays 0 */
    for (int i = 0; i < m; i++) {
        int from = 0, to = most - 1;
        f.first[i] = find_overlaps(row, most, n, m, i, k);
        for (sum = row[0]; sum <= negligible; sum += row[from])
            from++;
        for (sum = row[to]; sum <= negligible; sum += row[to])
            to--;
        f.first[i] += from;
        f.taps = to - from + 1 > f.taps ? to - from + 1 : f.taps;
        memcpy(f.weights + (size_t)i * most, row + from, most * sizeof *row);
    }
    for (int i = 0; i < m; i++)
        normalise(f.weights + (size_t)i * most, f.taps, f.first[i], n, one);
    free(row);
    return f;
}

/* Resize a part of a plane to m x m values of 17 bits, in 1/512 of a level. */
static int64_t *resize(struct plane p, struct box b, int m)
{
    struct filter across = make_filter(b.width, m, 1 << 14), down = make_filter(b.height, m, 1 << 12);
    int64_t *rows = allocate((size_t)b.height * m, sizeof *rows), *out = allocate((size_t)m * m, sizeof *out);
    for (int at = 0; at < b.height * m; at++) {
        const uint8_t *samples = p.samples + (size_t)(b.top + at / m) * p.width + b.left;
        int64_t sum = 0, *weights = across.weights + (size_t)(at % m) * across.stride;
        for (int j = 0; j < across.taps; j++)
            sum += weights[j] * samples[clamp(across.first[at % m] + j, b.width - 1)];
        rows[at] = sum >> 7;
    }
    for (int at = 0; at < m * m; at++) {
        int64_t sum = 512, *weights = down.weights + (size_t)(at / m) * down.stride;
        for (int j = 0; j < down.taps; j++)
            sum += weights[j] * rows[(size_t)clamp(down.first[at / m] + j, b.height - 1) * m + at % m];
        out[at] = sum >> 10;
    }
    free(across.first), free(across.weights), free(down.first), free(down.weights), free(rows);
    return out;
}

/* Write the model input, m x m pixels of 3 bytes. Chroma has 2^right times fewer columns and 2^down fewer rows. */
static void preprocess(struct plane *p, int right, int down, struct box b, struct colour c, int m, int mask,
                       uint8_t *rgb)
{
    struct box part = {b.left >> right, b.top >> down, divide(b.width, right), divide(b.height, down)};
    int64_t *luma = resize(p[0], b, m), *cb = resize(p[1], part, m), *cr = resize(p[2], part, m);
    for (int at = 0; at < m * m; at++, rgb += 3) {
        int64_t from_left = 2 * (at % m) + 1 - m, from_top = 2 * (at / m) + 1 - m;
        int64_t y = (luma[at] - c.offset) * c.luma + (1 << 21), u = cb[at] - 65536, v = cr[at] - 65536;
        int black = mask && from_left * from_left + from_top * from_top > (int64_t)m * m;
        rgb[0] = black ? 0 : to_level(y + v * c.red_cr);
        rgb[1] = black ? 0 : to_level(y + v * c.green_cr + u * c.green_cb);
        rgb[2] = black ? 0 : to_level(y + u * c.blue_cb);
    }
    free(luma), free(cb), free(cr);
}

/* Return a sample of a made plane. Blocks are squares of 16 x 16 samples, 0 or 255; other content is "noise". */
static uint32_t make_sample(const char *content, uint32_t seed, uint32_t plane, uint32_t x, uint32_t y)
{
    int blocks = !strcmp(content, "blocks"), bright = !strcmp(content, "bright"), slopes = !strcmp(content, "slopes");
    uint32_t hash = (plane << 24 | y >> 4 * blocks << 12 | x >> 4 * blocks) * 2654435761u + seed * 2246822519u;
    hash = (hash ^ hash >> 15) * 3266489917u;
    hash = (hash ^ hash >> 13) >> 24;
    return blocks ? (hash & 1) * 255 : slopes ? 3 * x + 2 * y + (hash >> 4)
        : bright && plane ? 112 + (hash >> 3) : bright ? 240 + (hash >> 4) : hash;
}

/* Read or make the planes of a case; the size of luma is known. */
static void fill(struct plane *p, int right, int down, const char *content, uint32_t seed)
{
    for (int at = 0; at < 3; at++) {
        int width = divide(p[0].width, at ? right : 0), height = divide(p[0].height, at ? down : 0);
        p[at] = (struct plane){width, height, allocate((size_t)width * height, 1)};
        for (int i = 0; i < width * height; i++)
            p[at].samples[i] = (uint8_t)(!strcmp(content, "given") ? (uint32_t)getchar()
                : make_sample(content, seed, at, i % width, i / width));
    }
}

/* Return whether a case keeps to the limits of docs/preprocessing.md. */
static int is_sound(struct plane p, int right, int down, int matrix, int full, struct box b, int m)
{
    return (right | down | full | b.left | b.top) >= 0 && right <= 2 && down <= 2 && full <= 1 && m >= 8 && m <= 4096
        && matrix >= 1 && matrix <= 9 && COLOURS[matrix][full].luma && p.width <= 16384 && p.height <= 16384
        && b.width >= 1 && b.height >= 1 && b.width <= 128 * m && b.height <= 128 * m
        && b.left <= p.width - b.width && b.top <= p.height - b.height;
}

#define INT(key) " , \"" key "\" : %d"
static const char FORM[] = " { \"name\" : \"%63[^\"]\" , \"content\" : \"%15[^\"]\"" INT("seed") INT("width")
    INT("height") INT("shift_x") INT("shift_y") INT("matrix") INT("full_range") INT("left") INT("top")
    INT("box_width") INT("box_height") INT("size") INT("mask") " , \"fnv1a\" : \"%16" SCNx64;

int main(void)
{
    char line[8192], name[64], content[16];
    int seed, right, down, matrix, full, m, mask, differs = 0;
    uint64_t expected;
    struct plane p[3];
    struct box b;
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, FORM, name, content, &seed, &p[0].width, &p[0].height, &right, &down, &matrix, &full, &b.left,
                   &b.top, &b.width, &b.height, &m, &mask, &expected) != 16)
            continue; /* no case */
        if (!is_sound(p[0], right, down, matrix, full, b, m))
            return fprintf(stderr, "error: the case \"%s\" is beyond the limits of the norm\n", name), 2;
        fill(p, right, down, content, seed);
        uint8_t *rgb = allocate((size_t)m * m, 3);
        preprocess(p, right, down, b, COLOURS[matrix][full], m, mask, rgb);
        uint64_t hash = UINT64_C(14695981039346656037);
        for (size_t i = 0; i < (size_t)m * m * 3; i++)
            hash = (hash ^ rgb[i]) * UINT64_C(1099511628211);
        differs |= hash != expected;
        printf("%s %016" PRIx64 "\n", name, hash);
        free(rgb), free(p[0].samples), free(p[1].samples), free(p[2].samples);
    }
    return differs;
}
