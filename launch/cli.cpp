#include "launch/cli.h"

#include <cstdio>

namespace detente {
int run_command_line(int /*argc*/, char** /*argv*/) {
    std::puts("detente: under construction");
    return 0;
}
}  // namespace detente
