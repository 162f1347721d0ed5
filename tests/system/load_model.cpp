// load_model LIBRARY: loads a model library, computes one batch of gradients of every task, and
// prints the model's tasks. Exit code 0 if all of that works.
#include <cstdio>

#include "worker/engine.h"

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    const auto engine = detente::load_engine(argv[1], {});
    if (!engine) {
        std::fprintf(stderr, "%s\n", engine.error().text.c_str());
        return 1;
    }
    const detente::ModelDescription& description = (*engine)->description();
    detente::GradientRequest request;
    request.samples = {0, 1, 2, 3};
    for (std::uint32_t t = 0; t < description.tasks.size(); ++t) request.tasks.insert({t});
    const auto report = (*engine)->gradients(request);
    if (!report) {
        std::fprintf(stderr, "%s\n", report.error().text.c_str());
        return 1;
    }
    std::printf("model %s:", description.model.c_str());
    for (std::size_t t = 0; t < description.tasks.size(); ++t) {
        std::printf(" %s(loss %.3f)", description.tasks[t].c_str(), report->losses[t]);
    }
    std::printf(", %zu tensors\n", description.tensors.size());
    return 0;
}
