/* Calls kernels as standard input says, and writes what they leave in memory. `kernels.h` lists them: X(name) for each.

A call is uint64 numbers: which kernel, how many arguments, how many more buffers; for each of them 0 and a number, or the
size of a buffer and its bytes; how many addresses lie in buffers, and of each the buffer, the word of 64 bits in it, what
is there (0: a buffer, 1: a kernel), its number, and bytes from its beginning; then a float64, which some kernels take.
Integers and floats have registers of their own in the calling convention, so one type of function serves all kernels. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { ARGUMENTS = 13, MOST = 64 };

#define X(name) void name();
#include "kernels.h"
#undef X
#define X(name) name,
static void (*const kernels[])() = {
#include "kernels.h"
};

static void receive(void *place, size_t size) {
    if (size && fread(place, size, 1, stdin) != 1) {
        fputs("the calls end too early\n", stderr);
        exit(1);
    }
}

static uint64_t word(void) {
    uint64_t value;
    receive(&value, sizeof value);
    return value;
}

int main(void) {
    for (uint64_t calls = word(); calls; calls--) {
        uint64_t kernel = word(), arguments = word(), all = arguments + word(), size[MOST] = {0}, a[MOST] = {0};
        double factor;
        if (kernel >= sizeof kernels / sizeof *kernels || arguments > ARGUMENTS || all > MOST)
            return 2;
        for (uint64_t i = 0; i < all; i++) {
            size[i] = word();
            if (size[i]) {
                a[i] = (uint64_t)aligned_alloc(64, (size[i] + 63) / 64 * 64);
                receive((void *)a[i], size[i]);
            } else {
                a[i] = word();
            }
        }
        for (uint64_t links = word(); links; links--) {
            uint64_t buffer = word(), place = word(), is_kernel = word(), number = word(), bytes = word();
            ((uint64_t *)a[buffer])[place] = (is_kernel ? (uint64_t)kernels[number] : a[number]) + bytes;
        }
        receive(&factor, sizeof factor);
        ((void (*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                   uint64_t, uint64_t, uint64_t, double))kernels[kernel])(
            a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], factor);
        for (uint64_t i = 0; i < all; i++)
            if (size[i]) {
                if (fwrite((void *)a[i], size[i], 1, stdout) != 1)
                    return 3;
                free((void *)a[i]);
            }
    }
    return 0;
}
