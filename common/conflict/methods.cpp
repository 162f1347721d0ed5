#include "common/conflict/methods.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <system_error>

#include "common/invariant.h"

namespace detente::methods {

std::optional<std::string_view> parameter(const AggregatorConfig& config, std::string_view name) {
    for (const auto& [key, value] : config.parameters) {
        if (key == name) return value;
    }
    return std::nullopt;
}

void Settings::wrong(std::string_view name, const std::string& wanted, std::string_view found) {
    if (error_) return;
    error_ = fail(ErrorCode::bad_job, fmt::format("aggregator '{}': {} must be {}, found '{}'",
                                                  config_.name, name, wanted, found));
}

double Settings::real(std::string_view name, double standard, double lowest, double highest) {
    const auto text = parameter(config_, name);
    if (!text) return standard;
    double value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    const bool whole = error == std::errc() && end == text->data() + text->size();
    if (whole && value >= lowest && value <= highest) return value;
    wrong(name,
          highest >= 1e18 ? fmt::format("a number of at least {}", lowest)
                          : fmt::format("a number from {} to {}", lowest, highest),
          *text);
    return standard;
}

std::uint64_t Settings::count(std::string_view name, std::uint64_t standard, std::uint64_t lowest,
                              std::uint64_t highest) {
    const auto text = parameter(config_, name);
    if (!text) return standard;
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    const bool whole = error == std::errc() && end == text->data() + text->size();
    if (whole && value >= lowest && value <= highest) return value;
    wrong(name, fmt::format("a whole number from {} to {}", lowest, highest), *text);
    return standard;
}

std::string Settings::choice(std::string_view name, const std::vector<std::string>& choices) {
    const auto text = parameter(config_, name);
    if (!text) return choices.front();
    for (const std::string& choice : choices) {
        if (choice == *text) return choice;
    }
    wrong(name, fmt::format("one of {}", fmt::join(choices, ", ")), *text);
    return choices.front();
}

std::vector<double> Settings::list(std::string_view name, std::string_view none, double lowest) {
    const auto text = parameter(config_, name);
    if (!text || *text == none) return {};
    std::vector<double> values;
    for (const std::string_view piece : split(unbracketed(*text), ',')) {
        double value = 0;
        const auto [end, error] = std::from_chars(piece.data(), piece.data() + piece.size(), value);
        const bool whole = error == std::errc() && end == piece.data() + piece.size();
        if (!whole || !(value >= lowest && value <= 1e18)) {
            wrong(name,
                  lowest > -1e18 ? fmt::format("numbers of at least {}, separated by ','", lowest)
                                 : std::string("numbers separated by ','"),
                  *text);
            return {};
        }
        values.push_back(value);
    }
    return values;
}

std::string_view unbracketed(std::string_view list) {
    const bool bracketed = list.size() >= 2 && list.front() == '[' && list.back() == ']';
    return bracketed ? list.substr(1, list.size() - 2) : list;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
    std::vector<std::string_view> pieces;
    for (std::size_t begin = 0;;) {
        const std::size_t end = text.find(separator, begin);
        std::string_view piece = text.substr(begin, end - begin);
        while (!piece.empty() && piece.front() == ' ') piece.remove_prefix(1);
        while (!piece.empty() && piece.back() == ' ') piece.remove_suffix(1);
        pieces.push_back(piece);
        if (end == std::string_view::npos) return pieces;
        begin = end + 1;
    }
}

Result<std::vector<double>> spread(const std::vector<double>& values, std::size_t tasks,
                                   const std::string& what) {
    if (values.size() == 1) return std::vector<double>(tasks, values.front());
    if (values.size() == tasks) return values;
    return fail(ErrorCode::bad_job,
                fmt::format("{} lists {} numbers, but there are {} tasks: give one number per "
                            "task, separated by ','",
                            what, values.size(), tasks));
}

namespace {

Result<void> check_cross(const Gramian* cross) {
    const std::size_t n = cross == nullptr ? 0 : cross->tasks();
    const auto wrong = [&](std::size_t i, std::size_t j) {
        return fail(ErrorCode::not_finite,
                    fmt::format("the inner product of the gradients of task {} in the first batch "
                                "and task {} in the second should be finite, but is {}. Look at "
                                "their losses and learning rates, or clip their gradients",
                                i, j, cross->at(i, j)));
    };
    // As above: the diagonal accuses nobody else.
    for (std::size_t i = 0; i < n; ++i) {
        if (!std::isfinite(cross->at(i, i))) return wrong(i, i);
    }
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            if (!std::isfinite(cross->at(i, j))) return wrong(i, j);
        }
    }
    return {};
}

}  // namespace

Result<void> check_finite(const AggregatorInput& input) {
    invariant(input.gramian != nullptr, "an aggregator is given a Gramian");
    const Gramian& g = *input.gramian;
    const std::size_t n = g.tasks();
    // A row with NaN or Inf shows on the diagonal; off it, it would accuse its partner as well.
    for (std::size_t i = 0; i < n; ++i) {
        if (std::isfinite(g.at(i, i))) continue;
        return fail(ErrorCode::not_finite,
                    fmt::format("the gradient of task {} should be finite, but its squared norm is "
                                "{}: it holds NaN or Inf, or elements beyond 1e19. Look at the "
                                "task's loss and learning rate, or clip its gradient",
                                i, g.at(i, i)));
    }
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t j = 0; j < n; ++j) {
            if (std::isfinite(g.at(i, j))) continue;
            return fail(ErrorCode::not_finite,
                        fmt::format("the inner product of the gradients of task {} and task {} "
                                    "should be finite, but is {}",
                                    i, j, g.at(i, j)));
        }
    }
    for (std::size_t i = 0; i < input.losses.size(); ++i) {
        if (std::isfinite(input.losses[i])) continue;
        return fail(ErrorCode::not_finite, fmt::format("the loss of task {} should be finite, but "
                                                       "is {}. Look at its batch and learning rate",
                                                       i, input.losses[i]));
    }
    if (auto finite = check_cross(input.cross); !finite) return finite;
    for (std::size_t i = 0; i < input.excess.size(); ++i) {
        if (std::isfinite(input.excess[i])) continue;
        return fail(ErrorCode::not_finite,
                    fmt::format("the excess of task {} (its gradient beside its accumulated "
                                "squares) should be finite, but is {}. Look at the task's loss and "
                                "learning rate, or clip its gradient",
                                i, input.excess[i]));
    }
    return {};
}

bool all_zero(const Gramian& gramian) {
    for (std::size_t i = 0; i < gramian.tasks(); ++i) {
        if (gramian.at(i, i) != 0) return false;
    }
    return true;
}

}  // namespace detente::methods
