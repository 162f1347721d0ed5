// The program's verbs: parses the command line and runs the one asked for.
#pragma once

namespace detente {
// Returns the process's exit code (launch/exit_code.h).
int run_command_line(int argc, char** argv);
}  // namespace detente
