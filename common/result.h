// Expected failures travel as values: Result<T> holds a T or an Error. An Error's text says what
// was expected, what was found, where, and what to do; its code is stable and is what programs
// test.
#pragma once

#include <boost/system/result.hpp>
#include <stdexcept>
#include <string>
#include <utility>

namespace detente {

enum class ErrorCode {
    bad_job,           // job file or --set: unknown key, wrong type, out of range
    bad_model,         // model library missing, wrong ABI, refused layer, summed losses
    bad_dataset,       // dataset missing, truncated, unexpected contents
    bad_message,       // bytes that are no message of ours
    wrong_build,       // peer speaks another wire version or was built differently
    wrong_generation,  // message of another job or of before a restore
    wrong_epoch,       // push based on contents from before a rollback or restart
    unknown_block,     // block id not in the plan, or not at home on this shard
    not_owner,         // a task outside the block's owner set contributed
    bad_length,        // payload length differs from the block's
    bad_checksum,      // payload altered on its way
    not_finite,        // NaN or Inf
    over_limit,        // larger or more than the stated bound
    timed_out,         // a deadline passed; the text names who is missing
    peer_lost,         // a process this one depends on is gone
    io,                // disk: missing, unwritable, full, short
    bad_checkpoint,    // checkpoint incomplete, altered, or of another model
    not_supported,     // asked for something this build or machine does not have
    cancelled,         // by request: signal, control, cancel()
    internal           // a books mismatch or a bug: please report
};
const char* name_of(ErrorCode code);

struct Error {
    ErrorCode code = ErrorCode::internal;
    std::string text;
};

// What value() throws when asked of a failed Result without checking: a programming error.
class BadResultAccess : public std::logic_error {
  public:
    explicit BadResultAccess(const Error& error)
        : std::logic_error(std::string(name_of(error.code)) + ": " + error.text) {}
};
[[noreturn]] inline void throw_exception_from_error(const Error& error,
                                                    const boost::source_location&) {
    throw BadResultAccess(error);
}

template <class T>
using Result = boost::system::result<T, Error>;

inline Error fail(ErrorCode code, std::string text) { return Error{code, std::move(text)}; }

}  // namespace detente
