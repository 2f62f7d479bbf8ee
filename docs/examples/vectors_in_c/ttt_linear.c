/* TTT-Linear from docs/mathematics.md, against the frozen vectors, in C and its standard library: docs/vectors.md.
 *
 *     cc -O2 -o ttt_linear ttt_linear.c -lm && ./ttt_linear inner-linear-initial.safetensors answers/inner-linear-initial.safetensors
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { char *header, *data; } File;
typedef struct { double *x; long shape[4], size; } Array; /* x is NULL where the file has no such array */

static void fail(const char *what, const char *which) { fprintf(stderr, "%s: %s\n", what, which); exit(1); }

static File read_file(const char *path) { /* the length of the header, the header, the data; on a little-endian machine */
    FILE *f = fopen(path, "rb");
    if (!f) fail("cannot open", path);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *bytes = malloc(size + 1);
    if (!bytes || fread(bytes, 1, size, f) != (size_t)size) fail("cannot read", path);
    fclose(f);
    uint64_t length;
    memcpy(&length, bytes, 8);
    File file = {malloc(length + 1), bytes + 8 + length};
    memcpy(file.header, bytes + 8, length);
    file.header[length] = 0;
    return file;
}

static Array array(File file, const char *name) {
    Array a = {0};
    char key[64];
    snprintf(key, sizeof key, "\"%s\":{\"dtype\":", name);
    const char *entry = strstr(file.header, key);
    if (!entry) return a;
    char *at = strstr(entry, "\"shape\":[") + 9;
    a.size = 1;
    for (int n = 0; *at != ']'; at += *at == ',') a.size *= a.shape[n++] = strtol(at, &at, 10);
    a.x = (double *)(file.data + strtol(strstr(at, "\"data_offsets\":[") + 16, NULL, 10));
    return a;
}

static double of_spec(File file, const char *field) { /* the spec is JSON in a string of JSON: its quotes are escaped */
    char key[64];
    snprintf(key, sizeof key, "\\\"%s\\\": ", field);
    const char *at = strstr(file.header, key);
    if (!at) fail("no such field of the spec", field);
    return strtod(at + strlen(key), NULL);
}

static double mean(int D, const double *x) {
    double sum = 0;
    for (int d = 0; d < D; d++) sum += x[d];
    return sum / D;
}

static double standardise(int D, double eps, double *z) { /* section 2: z becomes (z - mean z) r; r */
    double m = mean(D, z), variance = 0;
    for (int d = 0; d < D; d++) z[d] -= m, variance += z[d] * z[d] / D;
    double r = 1 / sqrt(variance + eps);
    for (int d = 0; d < D; d++) z[d] *= r;
    return r;
}

static double *copies(Array given, Array initial, int rows, double scale) { /* the given state, or the initial one scaled, for every row */
    double *x = malloc((rows * initial.size + 1) * sizeof *x);
    for (long n = 0; n < rows * initial.size; n++) x[n] = given.x ? given.x[n] : scale * initial.x[n % initial.size];
    return x;
}

int main(int count, char **paths) {
    if (count != 3) fail("usage", "ttt_linear VECTOR ANSWER");
    File file = read_file(paths[1]);
    if (array(file, "mask").x || array(file, "cu_seqlens").x || !strstr(file.header, "\\\"inner\\\": \\\"linear\\\"")
        || !strstr(file.header, "\\\"loss\\\": \\\"squared_error\\\"") || !array(file, "q").x)
        fail("not for this program", paths[1]);
    Array q = array(file, "q"), k = array(file, "k"), v = array(file, "v"), lr = array(file, "lr");
    Array W1 = array(file, "params.W1"), b1 = array(file, "params.b1"), phase = array(file, "state.phase");
    double *gamma = array(file, "params.norm_weight").x, *beta = array(file, "params.norm_bias").x, *delta = array(file, "params.token_lr_offset").x;
    int B = q.shape[0], T = q.shape[1], H = q.shape[2], D = q.shape[3], K = of_spec(file, "mini_batch_size");
    double eps = of_spec(file, "eps"), base = of_spec(file, "base_lr");
    double *y = malloc((q.size + 1) * sizeof *y), z[D], g[D], G[D];
    double *W = copies(array(file, "state.weights.W1"), W1, B, 1), *SW = copies(array(file, "state.grads.W1"), W1, B, 0);
    double *b = copies(array(file, "state.weights.b1"), b1, B, 1), *Sb = copies(array(file, "state.grads.b1"), b1, B, 0);
    int32_t p[B];
    for (int row = 0; row < B; row++) {
        for (int h = 0; h < H; h++) {
            double *w = W + (row * H + h) * D * D, *sw = SW + (row * H + h) * D * D, *c = b + (row * H + h) * D, *sc = Sb + (row * H + h) * D;
            const double *gm = gamma + h * D, *bt = beta + h * D;
            p[row] = phase.x ? ((int32_t *)phase.x)[row] : 0;
            for (int t = 0; t < T; t++) {
                long at = ((row * T + t) * H + h) * D;
                const double *qt = q.x + at, *kt = k.x + at, *vt = v.x + at;
                for (int e = 0; e < D; e++) { /* z = k W + b */
                    z[e] = c[e];
                    for (int d = 0; d < D; d++) z[e] += kt[d] * w[d * D + e];
                }
                double r = standardise(D, eps, z);
                for (int e = 0; e < D; e++) g[e] = gm[e] * (kt[e] + gm[e] * z[e] + bt[e] - vt[e]), G[e] = g[e] * z[e];
                double offset = mean(D, g), slope = mean(D, G);
                for (int e = 0; e < D; e++) { /* equation (7), then S <- S + l dL/dW */
                    G[e] = lr.x[(row * T + t) * H + h] * r * (g[e] - offset - z[e] * slope);
                    sc[e] += G[e];
                    for (int d = 0; d < D; d++) sw[d * D + e] += kt[d] * G[e];
                }
                double step = base / D * fmax(0, 1.0 / (p[row] + 1) + delta[p[row]]); /* equation (2) */
                for (int e = 0; e < D; e++) { /* z = q (W - s S) + b - s S */
                    z[e] = c[e] - step * sc[e];
                    for (int d = 0; d < D; d++) z[e] += qt[d] * (w[d * D + e] - step * sw[d * D + e]);
                }
                standardise(D, eps, z);
                for (int e = 0; e < D; e++) y[at + e] = qt[e] + gm[e] * z[e] + bt[e];
                p[row] = (p[row] + 1) % K;
                if (p[row]) continue;
                for (int n = 0; n < D * D; n++) w[n] -= step * sw[n], sw[n] = 0; /* the border of a mini-batch: equation (5) */
                for (int n = 0; n < D; n++) c[n] -= step * sc[n], sc[n] = 0;
            }
        }
    }
    const char *names[] = {"y", "end.weights.W1", "end.grads.W1", "end.weights.b1", "end.grads.b1"};
    long shapes[][4] = {{B, T, H, D}, {B, H, D, D}, {B, H, D, D}, {B, H, 1, D}, {B, H, 1, D}}, end = 0;
    double *values[] = {y, W, SW, b, Sb};
    char header[2048];
    int length = sprintf(header, "{");
    for (int n = 0; n < 5; n++) {
        long *s = shapes[n], next = end + 8 * s[0] * s[1] * s[2] * s[3];
        length += sprintf(header + length, "\"%s\":{\"dtype\":\"F64\",\"shape\":[%ld,%ld,%ld,%ld],\"data_offsets\":[%ld,%ld]},",
                          names[n], s[0], s[1], s[2], s[3], end, next);
        end = next;
    }
    length += sprintf(header + length, "\"end.phase\":{\"dtype\":\"I32\",\"shape\":[%d],\"data_offsets\":[%ld,%ld]}}", B, end, end + 4L * B);
    while (length % 8) header[length++] = ' ';
    FILE *out = fopen(paths[2], "wb");
    if (!out) fail("cannot write", paths[2]);
    uint64_t prefix = length;
    fwrite(&prefix, 8, 1, out);
    fwrite(header, 1, length, out);
    for (int n = 0; n < 5; n++) fwrite(values[n], 8, shapes[n][0] * shapes[n][1] * shapes[n][2] * shapes[n][3], out);
    fwrite(p, 4, B, out);
    return fclose(out);
}
