// A broken invariant is a bug in Détente: it prints the condition, the sentence and the place, and
// aborts, in release builds too. Never for bad input: that is a Result.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace detente {
[[noreturn]] inline void invariant_broken(const char* condition, const char* sentence,
                                          const char* file, int line) {
    std::fprintf(stderr, "invariant broken at %s:%d: %s (%s)\n", file, line, sentence, condition);
    std::fflush(stderr);
    std::abort();
}
}  // namespace detente

#define invariant(condition, sentence) \
    (static_cast<bool>(condition)      \
         ? static_cast<void>(0)        \
         : ::detente::invariant_broken(#condition, sentence, __FILE__, __LINE__))
