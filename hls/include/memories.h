// How the memories on chip (types.h) are laid out, for every top. Which kind of block each big array takes is
// the board's: EDGEMTL_STREAM, EDGEMTL_POOL and EDGEMTL_ROWS are uram or bram, defined from
// bitstreams/boards.
#ifndef EDGEMTL_HLS_MEMORIES_H
#define EDGEMTL_HLS_MEMORIES_H

#define EDGEMTL_PRAGMA(text) _Pragma(#text)
#define EDGEMTL_BIND(array, kind) \
  EDGEMTL_PRAGMA(HLS bind_storage variable = memory.array type = ram_2p impl = kind)

// clang-format off
#define EDGEMTL_MEMORIES                                                              \
  EDGEMTL_PRAGMA(HLS disaggregate variable = memory)                                  \
  EDGEMTL_BIND(stream, EDGEMTL_STREAM)                                                \
  EDGEMTL_BIND(pool, EDGEMTL_POOL)                                                    \
  EDGEMTL_BIND(rows, EDGEMTL_ROWS)                                                    \
  EDGEMTL_PRAGMA(HLS array_partition variable = memory.pool dim = 1 complete)         \
  EDGEMTL_PRAGMA(HLS array_partition variable = memory.rows dim = 1 complete)         \
  EDGEMTL_PRAGMA(HLS array_reshape variable = memory.pool dim = 3 complete)           \
  EDGEMTL_PRAGMA(HLS array_reshape variable = memory.rows dim = 3 complete)           \
  EDGEMTL_PRAGMA(HLS array_reshape variable = memory.stream dim = 2 complete)         \
  EDGEMTL_PRAGMA(HLS array_reshape variable = memory.logit dim = 2 complete)
// clang-format on

#endif
