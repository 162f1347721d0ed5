#include "launch/exit_code.h"

namespace detente {

ExitCode exit_code_of(ErrorCode code) {
    switch (code) {
        case ErrorCode::bad_job:
        case ErrorCode::not_supported:
            return ExitCode::usage;
        case ErrorCode::bad_model:
        case ErrorCode::bad_dataset:
        case ErrorCode::not_finite:
            return ExitCode::model;
        case ErrorCode::peer_lost:
        case ErrorCode::wrong_generation:
        case ErrorCode::wrong_epoch:
            return ExitCode::process_lost;
        case ErrorCode::timed_out:
            return ExitCode::deadline;
        case ErrorCode::io:
        case ErrorCode::bad_message:
        case ErrorCode::bad_length:
        case ErrorCode::bad_checksum:
            return ExitCode::io;
        case ErrorCode::bad_checkpoint:
            return ExitCode::checkpoint;
        case ErrorCode::wrong_build:
            return ExitCode::build_mismatch;
        case ErrorCode::cancelled:
            return ExitCode::interrupted;
        case ErrorCode::unknown_block:
        case ErrorCode::not_owner:
        case ErrorCode::over_limit:
        case ErrorCode::internal:
            return ExitCode::bug;
    }
    return ExitCode::bug;
}

const char* meaning_of(ExitCode code) {
    switch (code) {
        case ExitCode::ok:
            return "done";
        case ExitCode::bug:
            return "internal error: please report";
        case ExitCode::usage:
            return "command line or job file; nothing was trained";
        case ExitCode::model:
            return "the model library, its dataset, or NaN or Inf in what it computed";
        case ExitCode::process_lost:
            return "a process the job cannot do without was lost";
        case ExitCode::deadline:
            return "a deadline passed; the text names who is missing";
        case ExitCode::books:
            return "the books of updates do not balance";
        case ExitCode::io:
            return "disk or network: missing, unwritable, full, port taken";
        case ExitCode::checkpoint:
            return "a checkpoint that is incomplete, altered, or of another model";
        case ExitCode::build_mismatch:
            return "processes of different builds";
        case ExitCode::invariant:
            return "fuzz: something that must always hold did not, and a line says how to run it "
                   "again; replay: something came out otherwise than recorded";
        case ExitCode::interrupted:
            return "Ctrl-C: ended in order";
        case ExitCode::terminated:
            return "SIGTERM: ended in order";
    }
    return "unknown";
}

}  // namespace detente
