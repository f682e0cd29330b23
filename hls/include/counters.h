// What a frame took, unit by unit. The kernel writes it to the buffer `counters` behind every frame it ran;
// edgemtl/fpga/counters.py reads it. All but the cycles is exact in C simulation; cycles come from a counter
// beside the kernel, on the same clock, and stay zero where there is none.
#ifndef EDGEMTL_HLS_COUNTERS_H
#define EDGEMTL_HLS_COUNTERS_H

#include "types.h"

namespace edgemtl {

constexpr int kCounterWords = kCounterUnits * kCounterWidth / 4;

struct Counters {
  uint32_t value[kCounterUnits][kCounterWidth];
  uint32_t last;  // cycle at which the last entry was made
};

void begin_counters(const volatile uint32_t* cycle, Counters& counters, Memory& memory);
void book(CounterUnit unit, const volatile uint32_t* cycle, Counters& counters, Memory& memory);
void write_counters(const Counters& counters, word_t* output);

}  // namespace edgemtl

#endif
