// A formula in the worker's index, as a job file has it: "1 + sqrt(i) + abs(normal(0, sqrt(i +
// 1)))".
//
//   numbers, i, + - * / ^ and parentheses as usual (^ binds strongest, from the right)
//   sqrt(x)  abs(x)  exp(x)  log(x)  min(x, y)  max(x, y)
//   normal(mean, variance)  uniform(from, to)  exponential(mean): drawn anew at each evaluation
//
// Thread: a value.
#pragma once

#include <string>
#include <vector>

#include "common/random.h"
#include "common/result.h"

namespace detente::sim {

class IndexFormula {
  public:
    // bad_job: what was expected where, as the end of a sentence.
    static Result<IndexFormula> parse(const std::string& text);

    // Draws in the order in which they stand.
    double at(double index, Random& random) const;

  private:
    friend class FormulaReader;
    // One step of a stack machine.
    struct Operation {
        enum class Kind {
            number,
            index,
            add,
            subtract,
            multiply,
            divide,
            power,
            negate,
            square_root,
            absolute,
            exponent,
            logarithm,
            least,
            greatest,
            normal,
            uniform,
            exponential
        };
        Kind kind = Kind::number;
        double number = 0;
    };
    static double applied(Operation::Kind kind, double x, double y, Random& random);
    static bool takes_two(Operation::Kind kind);

    std::vector<Operation> operations_;
};

}  // namespace detente::sim
