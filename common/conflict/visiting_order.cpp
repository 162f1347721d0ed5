#include "common/conflict/visiting_order.h"

#include <fmt/format.h>

#include <charconv>
#include <system_error>

#include "common/conflict/methods.h"
#include "common/random.h"

namespace detente {
namespace {

constexpr const char* kDrawn = "drawn";

Error bad_order(const std::string& method, std::string_view text, const std::string& why) {
    return fail(ErrorCode::bad_job,
                fmt::format("{}'s order should list for each task, separated by ';', the tasks "
                            "it visits, separated by ',' (two tasks: 1;0), but '{}' {}",
                            method, text, why));
}

struct List {
    std::string_view text;  // the whole parameter, for messages
    std::string_view list;
    std::size_t task = 0;
    std::size_t tasks = 0;
};

// One task's list: each other task once.
Result<std::vector<std::uint32_t>> parse_visits(const std::string& method, const List& of) {
    std::vector<std::uint32_t> visits;
    std::vector<bool> seen(of.tasks, false);
    seen[of.task] = true;
    for (const std::string_view piece : methods::split(of.list, ',')) {
        if (piece.empty() && of.tasks == 1) continue;
        std::uint32_t j = 0;
        const auto [end, error] = std::from_chars(piece.data(), piece.data() + piece.size(), j);
        if (error != std::errc{} || end != piece.data() + piece.size() || j >= of.tasks) {
            return bad_order(
                method, of.text,
                fmt::format("has '{}' where a task's index below {} belongs", piece, of.tasks));
        }
        if (j == of.task) continue;
        if (seen[j]) {
            return bad_order(method, of.text,
                             fmt::format("has task {} visit {} twice", of.task, j));
        }
        seen[j] = true;
        visits.push_back(j);
    }
    if (visits.size() + 1 != of.tasks) {
        return bad_order(
            method, of.text,
            fmt::format("has task {} visit {} of {} others", of.task, visits.size(), of.tasks - 1));
    }
    return visits;
}

}  // namespace

ExplainedParameter VisitingOrder::explained() {
    return {"order",
            "fixed visiting order: per task, separated by ';', the tasks it visits, separated by "
            "',' (two tasks: 1;0), or drawn: from the seed at every step (default drawn)",
            kDrawn, true};
}

Result<VisitingOrder> VisitingOrder::parse(std::string_view text, const std::string& method) {
    VisitingOrder order;
    if (text == kDrawn) return order;
    const std::vector<std::string_view> lists = methods::split(text, ';');
    for (std::size_t task = 0; task < lists.size(); ++task) {
        auto visits = parse_visits(method, {text, lists[task], task, lists.size()});
        if (!visits) return visits.error();
        order.lists_.push_back(std::move(*visits));
    }
    return order;
}

Result<void> VisitingOrder::check(std::size_t tasks, const std::string& method) const {
    if (lists_.empty() || lists_.size() == tasks) return {};
    return fail(ErrorCode::bad_job,
                fmt::format("{}'s order lists the visits of {} tasks, but there are {}: give one "
                            "list per task, separated by ';'",
                            method, lists_.size(), tasks));
}

std::vector<std::uint32_t> VisitingOrder::of(std::size_t task, std::size_t tasks,
                                             std::uint64_t key) const {
    if (!lists_.empty()) return lists_[task];
    return permutation(random_key(key, Purpose::aggregator, {task}),
                       static_cast<std::uint32_t>(tasks));
}

}  // namespace detente
