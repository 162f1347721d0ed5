#include "common/books.h"

namespace detente {

void Books::add(const Books& other) {
    computed += other.computed;
    applied += other.applied;
    rejected += other.rejected;
    cancelled += other.cancelled;
    lost += other.lost;
    in_flight += other.in_flight;
}

Result<void> Books::balance(const std::string& whose) const {
    const std::uint64_t settled = applied + rejected + cancelled + lost + in_flight;
    if (settled == computed) return {};
    return fail(ErrorCode::internal,
                whose + ": the books do not balance: computed " + std::to_string(computed) +
                    ", but applied " + std::to_string(applied) + " + rejected " +
                    std::to_string(rejected) + " + cancelled " + std::to_string(cancelled) +
                    " + lost " + std::to_string(lost) + " + in flight " +
                    std::to_string(in_flight) + " = " + std::to_string(settled) +
                    "; this is a bug in Détente, please report it with the run directory");
}

}  // namespace detente
