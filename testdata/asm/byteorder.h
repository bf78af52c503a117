/* SPDX-License-Identifier: MIT */
/*
 * The byte order of the target, in place of that of the compiling machine. Bit
 * fields of network headers depend on it.
 */
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#include <linux/byteorder/big_endian.h>
#else
#include <linux/byteorder/little_endian.h>
#endif
