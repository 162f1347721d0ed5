#include "ps/policy_saved.h"

#include <bit>
#include <cstdint>
#include <sstream>
#include <vector>

namespace detente {
namespace {

constexpr const char* kFormat = "policy 1";
constexpr std::size_t kMostValues = 1U << 20U;

void put(std::ostream& text, const std::vector<double>& values) {
    text << ' ' << values.size();
    for (const double value : values) text << ' ' << std::bit_cast<std::uint64_t>(value);
}

// False: not what put() wrote.
bool take(std::istream& text, std::vector<double>& values) {
    std::size_t count = 0;
    text >> count;
    if (!text || count > kMostValues) return false;
    for (std::size_t i = 0; i < count && text; ++i) {
        std::uint64_t bits = 0;
        text >> bits;
        values.push_back(std::bit_cast<double>(bits));
    }
    return static_cast<bool>(text);
}

}  // namespace

std::string saved_policy(const std::string& name, const PolicyState& state) {
    std::ostringstream text;
    text << kFormat << ' ' << name;
    put(text, state.values);
    text << ' ' << state.workers.size();
    for (const auto& [worker, values] : state.workers) {
        text << ' ' << worker.value;
        put(text, values);
    }
    return text.str();
}

Result<std::optional<PolicyState>> restored_policy(const std::string& name,
                                                   const std::string& saved) {
    const auto bad = [] {
        return fail(ErrorCode::bad_checkpoint,
                    std::string("the checkpoint's policy state is not what '") + kFormat +
                        "' says; resume from another checkpoint");
    };
    std::istringstream text(saved);
    std::string word;
    std::string format;
    std::string of;
    text >> word >> format >> of;
    if (!text || word + " " + format != kFormat) return bad();
    if (of != name) return std::optional<PolicyState>();
    PolicyState state;
    std::size_t workers = 0;
    if (!take(text, state.values)) return bad();
    text >> workers;
    for (std::size_t i = 0; i < workers && text; ++i) {
        WorkerId worker;
        text >> worker.value;
        if (!take(text, state.workers[worker])) return bad();
    }
    if (!text) return bad();
    return std::optional(std::move(state));
}

}  // namespace detente
