/* SPDX-License-Identifier: MIT */
/*
 * The byte order of the target, in place of that of the machine that compiles:
 * bit fields of network headers hang on it.
 */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#include <linux/byteorder/big_endian.h>
#else
#include <linux/byteorder/little_endian.h>
#endif
