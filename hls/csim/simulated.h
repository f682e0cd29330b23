// What the C simulation shares with the twins behind it.
#ifndef EDGEMTL_CSIM_SIMULATED_H
#define EDGEMTL_CSIM_SIMULATED_H

#include <cstdint>

namespace edgemtl {

// The wire `cycle` of the top level. It stands still in C simulation; twin.cpp moves it on.
extern uint32_t simulated_cycle;

}  // namespace edgemtl

#endif
