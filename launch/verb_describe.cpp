// detente describe JOB: loads the model library and prints what the framework must know of it.
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>

#include "launch/cli.h"
#include "launch/describe.h"
#include "launch/job.h"

namespace detente {
namespace {

// Whatever a model library prints while it loads goes to the standard error, so that the standard
// output holds the description only.
class StandardOutputAside {
  public:
    StandardOutputAside() : kept_(::dup(STDOUT_FILENO)) { ::dup2(STDERR_FILENO, STDOUT_FILENO); }
    ~StandardOutputAside() {
        std::fflush(stdout);
        ::dup2(kept_, STDOUT_FILENO);
        ::close(kept_);
    }
    StandardOutputAside(const StandardOutputAside&) = delete;
    StandardOutputAside& operator=(const StandardOutputAside&) = delete;

  private:
    int kept_;
};

Result<ModelDescription> load_and_describe(const Job& job, const std::string& device) {
    const StandardOutputAside aside;
    EngineOptions options = engine_options_of(job);
    options.device = device;
    const auto engine = load_engine(job.model_library, options);
    if (!engine) return engine.error();
    ModelDescription description = (*engine)->description();
    auto checksum = library_checksum(job.model_library);
    if (!checksum) return checksum.error();
    description.library = std::move(*checksum);
    return description;
}

int describe_resolved(const std::string& device) {
    const std::string text((std::istreambuf_iterator<char>(std::cin)),
                           std::istreambuf_iterator<char>());
    const auto job = parse_job(text, "the resolved job");
    const auto description =
        job ? load_and_describe(*job, device) : Result<ModelDescription>(job.error());
    std::puts(description ? to_json(*description).c_str() : to_json(description.error()).c_str());
    return description ? 0 : value_of(exit_code_of(description.error().code));
}

int describe_file(const JobArguments& arguments, const std::string& device) {
    const auto job = read_job(arguments);
    if (!job) return report("describe", job.error());
    const auto description = load_and_describe(*job, device);
    if (!description) return report("describe", description.error());
    std::puts(to_json(*description).c_str());
    return 0;
}

}  // namespace

void add_describe_verb(CLI::App& app, int& exit_code) {
    struct Options {
        JobArguments job;
        bool resolved = false;
        std::string device = "cpu";
    };
    const auto options = std::make_shared<Options>();
    CLI::App* verb = app.add_subcommand(
        "describe", "Loads the model library and prints its tensors, tasks and samples (JSON)");
    add_job_arguments(*verb, options->job);
    verb->get_option("JOB")->required(false);
    verb->add_flag("--resolved-job", options->resolved,
                   "Reads a resolved job on the standard input instead of JOB");
    verb->add_option("--device", options->device,
                     "Also tries it there, as a worker would: cuda:0 (default: cpu)");
    verb->callback([options, &exit_code] {
        if (!options->resolved && options->job.job_file.empty()) {
            throw CLI::RequiredError("JOB");
        }
        exit_code = options->resolved ? describe_resolved(options->device)
                                      : describe_file(options->job, options->device);
    });
}

}  // namespace detente
