#include "common/runtime/sim/index_formula.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <string_view>
#include <utility>

namespace detente::sim {

// Recursive descent; what it leaves is in the order of evaluation.
class FormulaReader {
  public:
    explicit FormulaReader(std::string_view text) : text_(text) {}

    Result<IndexFormula> read() {
        // Bounds the recursion as well.
        constexpr std::size_t kLongest = 500;
        if (text_.size() > kLongest) {
            return fail(ErrorCode::bad_job,
                        fmt::format("must have at most {} characters", kLongest));
        }
        sum();
        if (wrong_.empty() && !at_end()) expected("an operator or the end");
        if (!wrong_.empty()) return fail(ErrorCode::bad_job, wrong_);
        return std::move(formula_);
    }

  private:
    using Kind = IndexFormula::Operation::Kind;
    struct Function {
        std::string_view name;
        Kind kind;
    };
    static constexpr std::array<Function, 9> kFunctions{{{"sqrt", Kind::square_root},
                                                         {"abs", Kind::absolute},
                                                         {"exp", Kind::exponent},
                                                         {"log", Kind::logarithm},
                                                         {"min", Kind::least},
                                                         {"max", Kind::greatest},
                                                         {"normal", Kind::normal},
                                                         {"uniform", Kind::uniform},
                                                         {"exponential", Kind::exponential}}};

    void sum() {
        product();
        while (wrong_.empty()) {
            if (take('+')) {
                product();
                add(Kind::add);
            } else if (take('-')) {
                product();
                add(Kind::subtract);
            } else {
                return;
            }
        }
    }
    void product() {
        signed_power();
        while (wrong_.empty()) {
            if (take('*')) {
                signed_power();
                add(Kind::multiply);
            } else if (take('/')) {
                signed_power();
                add(Kind::divide);
            } else {
                return;
            }
        }
    }
    void signed_power() {
        if (take('-')) {
            signed_power();
            return add(Kind::negate);
        }
        atom();
        if (wrong_.empty() && take('^')) {
            signed_power();
            add(Kind::power);
        }
    }
    void atom() {
        if (take('(')) {
            sum();
            return must_take(')');
        }
        const std::string_view name = word();
        if (name == "i") return add(Kind::index);
        if (!name.empty()) return call(name);
        double number = 0;
        const char* begin = text_.data() + at_;
        const auto read = std::from_chars(begin, text_.data() + text_.size(), number);
        if (read.ec != std::errc()) return expected("a number, i, a function or '('");
        at_ += static_cast<std::size_t>(read.ptr - begin);
        add(Kind::number, number);
    }
    void call(std::string_view name) {
        const auto* const found =
            std::find_if(kFunctions.begin(), kFunctions.end(),
                         [&](const Function& one) { return one.name == name; });
        if (found == kFunctions.end()) {
            at_ -= name.size();
            std::array<std::string_view, kFunctions.size()> names;
            std::transform(kFunctions.begin(), kFunctions.end(), names.begin(),
                           [](const Function& one) { return one.name; });
            return expected(fmt::format("i or one of {}", fmt::join(names, ", ")));
        }
        must_take('(');
        if (wrong_.empty()) sum();
        if (IndexFormula::takes_two(found->kind)) {
            must_take(',');
            if (wrong_.empty()) sum();
        }
        must_take(')');
        add(found->kind);
    }

    std::string_view word() {
        skip_space();
        const std::size_t begin = at_;
        while (at_ < text_.size() && text_[at_] >= 'a' && text_[at_] <= 'z') ++at_;
        return text_.substr(begin, at_ - begin);
    }
    void skip_space() {
        while (at_ < text_.size() && text_[at_] == ' ') ++at_;
    }
    bool at_end() {
        skip_space();
        return at_ == text_.size();
    }
    bool take(char symbol) {
        if (at_end() || text_[at_] != symbol) return false;
        ++at_;
        return true;
    }
    void must_take(char symbol) {
        if (wrong_.empty() && !take(symbol)) expected(fmt::format("'{}'", symbol));
    }
    void add(Kind kind, double number = 0) {
        if (wrong_.empty()) formula_.operations_.push_back({kind, number});
    }
    void expected(const std::string& what) {
        if (!wrong_.empty()) return;
        skip_space();
        const std::string_view rest = text_.substr(at_);
        wrong_ = fmt::format("expected {} at character {}, found {}", what, at_ + 1,
                             rest.empty() ? "its end" : fmt::format("'{}'", rest));
    }

    std::string_view text_;
    std::size_t at_ = 0;
    std::string wrong_;  // the first mistake
    IndexFormula formula_;
};

Result<IndexFormula> IndexFormula::parse(const std::string& text) {
    return FormulaReader(text).read();
}

bool IndexFormula::takes_two(Operation::Kind kind) {
    using Kind = Operation::Kind;
    switch (kind) {
        case Kind::add:
        case Kind::subtract:
        case Kind::multiply:
        case Kind::divide:
        case Kind::power:
        case Kind::least:
        case Kind::greatest:
        case Kind::normal:
        case Kind::uniform:
            return true;
        default:
            return false;
    }
}

double IndexFormula::applied(Operation::Kind kind, double x, double y, Random& random) {
    using Kind = Operation::Kind;
    switch (kind) {
        case Kind::add:
            return x + y;
        case Kind::subtract:
            return x - y;
        case Kind::multiply:
            return x * y;
        case Kind::divide:
            return x / y;
        case Kind::power:
            return std::pow(x, y);
        case Kind::negate:
            return -x;
        case Kind::square_root:
            return std::sqrt(x);
        case Kind::absolute:
            return std::abs(x);
        case Kind::exponent:
            return std::exp(x);
        case Kind::logarithm:
            return std::log(x);
        case Kind::least:
            return std::min(x, y);
        case Kind::greatest:
            return std::max(x, y);
        case Kind::normal:
            return x + std::sqrt(y) * random.normal();
        case Kind::uniform:
            return x + (y - x) * random.uniform();
        case Kind::exponential:
            return x * random.exponential();
        case Kind::number:
        case Kind::index:
            break;  // not applied to anything
    }
    return x;
}

double IndexFormula::at(double index, Random& random) const {
    std::vector<double> stack;
    for (const Operation& operation : operations_) {
        if (operation.kind == Operation::Kind::number) {
            stack.push_back(operation.number);
            continue;
        }
        if (operation.kind == Operation::Kind::index) {
            stack.push_back(index);
            continue;
        }
        double second = 0;
        if (takes_two(operation.kind)) {
            second = stack.back();
            stack.pop_back();
        }
        stack.back() = applied(operation.kind, stack.back(), second, random);
    }
    return stack.back();
}

}  // namespace detente::sim
