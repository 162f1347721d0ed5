// Representation space: the graph is cut at the trunk's output, so that a task's backward ends
// there, and one backward of what was made of the tasks' gradients goes through the trunk (Sener
// and Koltun 2018, section 3.3, who minimise with it an upper bound of MGDA's objective).
//
// Thread: the engine's compute thread.
#pragma once

#include <torch/types.h>

#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

namespace detente {

struct ProbedTensor;
struct Task;

// One forward's cut. Model::heads() makes it.
struct Representation {
    torch::Tensor output;  // the trunk's, with its graph
    torch::Tensor leaf;    // the same values: where the heads' graphs end
    std::size_t calls = 0;

    // What the heads are to be given.
    torch::Tensor cut(const torch::Tensor& shared);
};

// bad_model unless the tensors that tasks share are those below the cut, and only those: `losses`
// were made over it. Takes owners from `tensors`; gives the trunk's places in it.
Result<std::vector<std::size_t>> probe_representation(const std::string& model,
                                                      const std::vector<Task>& tasks,
                                                      const std::vector<torch::Tensor>& losses,
                                                      const Representation& representation,
                                                      const std::vector<ProbedTensor>& tensors);

// bad_model: heads() was not called once in this forward.
std::optional<Error> check_cut(const std::string& model, const Representation& representation);

}  // namespace detente
