// The whole program but main().
#pragma once

namespace detente {

// Parses the command line and runs the verb asked for; returns the process's exit code
// (launch/exit_code.h).
int run_command_line(int argc, char** argv);

}  // namespace detente
