// Where the value of a key that is a member of the job lives, for the tables of keys.
#pragma once

#include "launch/job_keys.h"

namespace detente::job_slots {

template <class Member>
auto at(Member Job::*member) {
    return [member](Job& job, std::size_t) -> Slot { return &(job.*member); };
}

inline auto bytes_at(std::uint64_t Job::*member) {
    return [member](Job& job, std::size_t) -> Slot { return ByteSlot{&(job.*member)}; };
}

template <class Enum>
auto choice_at(Enum Job::*member) {
    return [member](Job& job, std::size_t) -> Slot {
        return ChoiceSlot{
            [&job, member] { return static_cast<std::size_t>(job.*member); },
            [&job, member](std::size_t chosen) { job.*member = static_cast<Enum>(chosen); }};
    };
}

}  // namespace detente::job_slots
