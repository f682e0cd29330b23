// Books what a unit used under its name, and the cycles since the entry before.
#include "counters.h"

namespace edgemtl {

void begin_counters(const volatile uint32_t* cycle, Counters& counters, Memory& memory) {
#pragma HLS inline off
  for (int u = 0; u < kCounterUnits; ++u)
    for (int f = 0; f < kCounterWidth; ++f) counters.value[u][f] = 0;
  memory.used = {0, 0, 0};
  counters.last = *cycle;
}

// Not inlined, and fed by what the unit left in `memory.used`: so the tool can neither begin it before the
// unit has ended nor begin the next unit before it.
void book(CounterUnit unit, const volatile uint32_t* cycle, Counters& counters, Memory& memory) {
#pragma HLS inline off
  const Used used = memory.used;
  const uint32_t now = *cycle;
  uint32_t* const value = counters.value[unit];
  value[kCCalls] += 1;
  value[kCSteps] += used.steps;
  value[kCCycles] += now - counters.last;
  value[kCRead] += used.read;
  value[kCWritten] += used.written;
  memory.used = {0, 0, 0};
  counters.last = now;
}

void write_counters(const Counters& counters, word_t* output) {
  for (int w = 0; w < kCounterWords; ++w) {
    word_t word = 0;
    for (int i = 0; i < 4; ++i) word.range(32 * i + 31, 32 * i) = counters.value[w / 2][w % 2 * 4 + i];
    output[w] = word;
  }
}

}  // namespace edgemtl
