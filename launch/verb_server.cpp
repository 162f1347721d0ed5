// detente server, detente worker: what `detente run` starts. Not shown in the help.
#include <memory>

#include "common/runtime/zmq/allocator.h"
#include "launch/cli.h"
#include "launch/roles.h"
#include "launch/run_verbs.h"

namespace detente {

namespace {

struct Started {
    RoleOptions role;
    std::string coordinator;
};

std::shared_ptr<Started> add_role_options(CLI::App& verb) {
    auto options = std::make_shared<Started>();
    verb.group("");  // hidden
    verb.add_option("--rank", options->role.rank)->required();
    verb.add_option("--coordinator", options->coordinator)->required();
    return options;
}

using RoleMain = ExitCode (*)(std::unique_ptr<ControlClient>, const RoleOptions&);

int run_role(const std::string& verb, const Started& options, RoleMain role_main) {
    auto control = connect_to(options.coordinator);
    if (control.has_error()) return report(verb, control.error());
    return value_of(role_main(std::move(*control), options.role));
}

}  // namespace

void add_server_verb(CLI::App& app, int& exit_code) {
    CLI::App* verb = app.add_subcommand("server", "One server of a run");
    const auto options = add_role_options(*verb);
    verb->add_option("--resume", options->role.resume);
    verb->callback([options, &exit_code] {
        tune_allocator_for_frames();  // before any thread
        exit_code = run_role("server", *options, run_server);
    });
}

void add_worker_verb(CLI::App& app, int& exit_code) {
    CLI::App* verb = app.add_subcommand("worker", "One worker of a run");
    const auto options = add_role_options(*verb);
    verb->add_option("--incarnation", options->role.incarnation.value);
    verb->add_option("--resume", options->role.resume);
    verb->callback([options, &exit_code] { exit_code = run_role("worker", *options, run_worker); });
}

}  // namespace detente
