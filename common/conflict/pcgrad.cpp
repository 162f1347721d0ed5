// PCGrad: Yu, Kumar, Gupta, Levine, Hausman and Finn, "Gradient surgery for multi-task learning"
// (2020), algorithm 1. Each task's gradient gᵢ, in turn for every other task j in random order, has
// its part along the unmodified gⱼ taken away where they conflict; the results are summed:
//     cᵢ = eᵢ;  for j ≠ i:  x = (G·cᵢ)ⱼ,  if x < 0:  cᵢⱼ −= x / Gⱼⱼ;   w = Σᵢ cᵢ.
//
// The order is drawn per task from the random key, or fixed by the parameter `order`. A zero
// gradient is never in conflict. With all gradients zero (status all_zero) the weights are 1.
#include <fmt/format.h>

#include <charconv>
#include <cstdint>

#include "common/conflict/methods.h"
#include "common/random.h"

namespace detente::methods {
namespace {

constexpr const char* kDrawn = "drawn";

using Orders = std::vector<std::vector<std::uint32_t>>;  // per task, whom it visits in turn

class Pcgrad final : public Aggregator {
  public:
    explicit Pcgrad(Orders orders) : orders_(std::move(orders)) {}
    std::string name() const override { return "pcgrad"; }
    Result<AggregatorOutput> weights(const AggregatorInput& input,
                                     AggregatorState& /*state*/) const override {
        if (const auto finite = check_finite(input); !finite) return finite.error();
        const Gramian& g = *input.gramian;
        const std::size_t tasks = g.tasks();
        if (!orders_.empty() && orders_.size() != tasks) {
            return fail(ErrorCode::bad_job,
                        fmt::format("pcgrad's order lists the visits of {} tasks, but there are "
                                    "{}: give one list per task, separated by ';'",
                                    orders_.size(), tasks));
        }
        AggregatorOutput output;
        output.weights.assign(tasks, 0.0);
        if (all_zero(g)) output.status = AggregatorStatus::all_zero;
        for (std::size_t i = 0; i < tasks; ++i) {
            const std::vector<std::uint32_t> order =
                orders_.empty()
                    ? permutation(random_key(input.random_key, Purpose::aggregator, {i}),
                                  static_cast<std::uint32_t>(tasks))
                    : orders_[i];
            project(g, i, order, output.weights);
        }
        return output;
    }

  private:
    // Adds cᵢ to `weights`.
    static void project(const Gramian& g, std::size_t i, const std::vector<std::uint32_t>& order,
                        std::vector<double>& weights) {
        std::vector<double> c(g.tasks(), 0.0);
        c[i] = 1;
        for (const std::uint32_t j : order) {
            if (j == i || !(g.at(j, j) > 0)) continue;
            double x = 0;
            for (std::size_t k = 0; k < c.size(); ++k) x += g.at(j, k) * c[k];
            if (x < 0) c[j] -= x / g.at(j, j);
        }
        for (std::size_t k = 0; k < c.size(); ++k) weights[k] += c[k];
    }

    Orders orders_;  // empty: drawn
};

Error bad_order(std::string_view text, const std::string& why) {
    return fail(ErrorCode::bad_job,
                fmt::format("pcgrad's order should list for each task, separated by ';', the tasks "
                            "it visits, separated by ',' (two tasks: 1;0), but '{}' {}",
                            text, why));
}

// Splits at `separator`; always at least one piece.
std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> pieces;
    for (std::size_t begin = 0;;) {
        const std::size_t end = text.find(separator, begin);
        pieces.push_back(text.substr(begin, end - begin));
        if (end == std::string_view::npos) return pieces;
        begin = end + 1;
    }
}

// One task's list: each other task once; the task itself may be in it and is passed over.
Result<std::vector<std::uint32_t>> parse_visits(std::string_view text, std::string_view list,
                                                std::size_t task, std::size_t tasks) {
    std::vector<std::uint32_t> visits;
    std::vector<bool> seen(tasks, false);
    seen[task] = true;
    std::size_t others = 0;
    for (std::string_view piece : split(list, ',')) {
        while (!piece.empty() && piece.front() == ' ') piece.remove_prefix(1);
        while (!piece.empty() && piece.back() == ' ') piece.remove_suffix(1);
        if (piece.empty() && tasks == 1) continue;
        std::uint32_t j = 0;
        const auto [end, error] = std::from_chars(piece.data(), piece.data() + piece.size(), j);
        if (error != std::errc{} || end != piece.data() + piece.size() || j >= tasks) {
            return bad_order(
                text, fmt::format("has '{}' where a task's index below {} belongs", piece, tasks));
        }
        if (j == task) continue;
        if (seen[j]) return bad_order(text, fmt::format("has task {} visit {} twice", task, j));
        seen[j] = true;
        visits.push_back(j);
        ++others;
    }
    if (others + 1 != tasks) {
        return bad_order(text,
                         fmt::format("has task {} visit {} of {} others", task, others, tasks - 1));
    }
    return visits;
}

Result<std::unique_ptr<const Aggregator>> make(const AggregatorConfig& config) {
    Orders orders;
    if (const auto text = parameter(config, "order"); text && *text != kDrawn) {
        const std::vector<std::string_view> lists = split(*text, ';');
        for (std::size_t task = 0; task < lists.size(); ++task) {
            auto visits = parse_visits(*text, lists[task], task, lists.size());
            if (!visits) return visits.error();
            orders.push_back(std::move(*visits));
        }
    }
    return std::make_unique<const Pcgrad>(std::move(orders));
}

}  // namespace

Method pcgrad() {
    return {"pcgrad",
            {{"order",
              "fixed visiting order: per task, separated by ';', the tasks it visits, separated by "
              "',' (two tasks: 1;0), or drawn: from the seed at every step (default drawn)",
              kDrawn}},
            make};
}

}  // namespace detente::methods
