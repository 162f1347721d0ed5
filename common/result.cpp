#include "common/result.h"

namespace detente {

const char* name_of(ErrorCode code) {
    switch (code) {
        case ErrorCode::bad_job:
            return "bad_job";
        case ErrorCode::bad_model:
            return "bad_model";
        case ErrorCode::bad_dataset:
            return "bad_dataset";
        case ErrorCode::bad_message:
            return "bad_message";
        case ErrorCode::wrong_build:
            return "wrong_build";
        case ErrorCode::wrong_generation:
            return "wrong_generation";
        case ErrorCode::wrong_epoch:
            return "wrong_epoch";
        case ErrorCode::unknown_block:
            return "unknown_block";
        case ErrorCode::not_owner:
            return "not_owner";
        case ErrorCode::bad_length:
            return "bad_length";
        case ErrorCode::bad_checksum:
            return "bad_checksum";
        case ErrorCode::not_finite:
            return "not_finite";
        case ErrorCode::over_limit:
            return "over_limit";
        case ErrorCode::timed_out:
            return "timed_out";
        case ErrorCode::peer_lost:
            return "peer_lost";
        case ErrorCode::io:
            return "io";
        case ErrorCode::bad_checkpoint:
            return "bad_checkpoint";
        case ErrorCode::not_supported:
            return "not_supported";
        case ErrorCode::cancelled:
            return "cancelled";
        case ErrorCode::internal:
            return "internal";
    }
    return "unknown";
}

}  // namespace detente
