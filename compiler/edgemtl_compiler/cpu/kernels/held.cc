// Hides from a process what its CPU has beyond AVX2, for the benchmark: loaded before all else (LD_PRELOAD),
// it has CPUID fault and answers in its place, in every thread that is started later. A library that asks the
// CPU, as all do, then runs its AVX2 code. x86-64 Linux, where CPU and kernel let CPUID fault; elsewhere it
// does nothing.
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace {

void let_cpuid(long run) { syscall(SYS_arch_prctl, ARCH_SET_CPUID, run); }

void answer(int, siginfo_t*, void* context) {
  auto* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  const auto* code = reinterpret_cast<const unsigned char*>(registers[REG_RIP]);
  if (code[0] != 0x0F ||
      code[1] != 0xA2) {  // not CPUID: the program's own fault, which comes again and ends it
    signal(SIGSEGV, SIG_DFL);
    return;
  }
  const auto leaf = static_cast<unsigned>(registers[REG_RAX]),
             part = static_cast<unsigned>(registers[REG_RCX]);
  unsigned a = 0, b = 0, c = 0, d = 0;
  let_cpuid(1);
  __cpuid_count(leaf, part, a, b, c, d);
  let_cpuid(0);
  if (leaf == 7 && part == 0) {
    b &= ~0xDC230000u;  // AVX-512: F, DQ, IFMA, PF, ER, CD, BW, VL
    c &= ~0x00005842u;  // VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ
    d &= ~0x03C0010Cu;  // 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; AMX
  } else if (leaf == 7 && part == 1) {
    a &= ~0x00A00030u;  // AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA
    d &= ~0x00080430u;  // AVX-VNNI-INT8, AVX-NE-CONVERT, AVX-VNNI-INT16, AVX10
  }
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) void hold() {
  struct sigaction action = {};
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &action, nullptr);
  let_cpuid(0);
}

}  // namespace

// Whether CPUID says here that there is AVX2, and nothing beyond it.
extern "C" int edgemtl_held() {
  unsigned a = 0, b = 0, c = 0, d = 0, e = 0;
  __cpuid_count(7, 0, a, b, c, d);
  __cpuid_count(7, 1, e, a, a, a);
  return (b >> 5 & 1) && !(b >> 16 & 1) && !(c >> 11 & 1) && !(e >> 4 & 1);
}
