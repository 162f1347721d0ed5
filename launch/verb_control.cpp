// detente control RUN --set staleness.policy=… (or staleness.admission=…) or --drain worker:2:
// changes a running job.
#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <cstdio>
#include <fstream>
#include <memory>

#include "launch/cli.h"
#include "launch/control_request.h"
#include "launch/roles.h"
#include "launch/run_directory.h"
#include "launch/run_verbs.h"

namespace detente {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using ErrorOfAsio = boost::system::error_code;

constexpr std::chrono::seconds kDeadline{15};

Result<std::string> first_line(const std::string& path) {
    std::ifstream file(path);
    std::string line;
    if (std::getline(file, line) && !line.empty()) return line;
    return fail(ErrorCode::io, fmt::format("cannot read {}: expected the directory of a run that "
                                           "you started and that is still running",
                                           path));
}

std::string whoever_asks() {
    const char* name = ::getlogin();
    return fmt::format("{}@{}, process {}", name == nullptr ? std::to_string(::getuid()) : name,
                       this_host(), ::getpid());
}

// One request and its answer, within the deadline.
class Exchange {
  public:
    Exchange(const std::string& token, const std::string& body) {
        request_.method(http::verb::post);
        request_.target(kControlPath);
        request_.set(http::field::host, "127.0.0.1");
        request_.set(kTokenHeader, token);
        request_.body() = body;
        request_.prepare_payload();
    }
    Result<std::string> with(const std::string& address) {
        const std::size_t colon = address.rfind(':');
        ErrorOfAsio error;
        const auto host = asio::ip::make_address(address.substr(0, colon), error);
        const int port = std::atoi(address.c_str() + colon + 1);
        if (error || colon == std::string::npos || port <= 0 || port > 65535) {
            return fail(ErrorCode::io, fmt::format("'{}' is no address of a run", address));
        }
        stream_.expires_after(kDeadline);
        stream_.async_connect({host, static_cast<std::uint16_t>(port)},
                              [this](const ErrorOfAsio& failed) {
                                  if (!ended(failed)) write();
                              });
        loop_.run();
        if (error_) {
            return fail(ErrorCode::peer_lost,
                        fmt::format("no answer from the run at http://{}{}: {}; is it still "
                                    "running?",
                                    address, kControlPath, error_.message()));
        }
        return response_.body();
    }

  private:
    bool ended(const ErrorOfAsio& failed) {
        if (failed) error_ = failed;
        return error_.failed();
    }
    void write() {
        http::async_write(stream_, request_, [this](const ErrorOfAsio& failed, std::size_t) {
            if (!ended(failed)) read();
        });
    }
    void read() {
        http::async_read(stream_, buffer_, response_,
                         [this](const ErrorOfAsio& failed, std::size_t) { ended(failed); });
    }
    asio::io_context loop_;
    beast::tcp_stream stream_{loop_};
    beast::flat_buffer buffer_;
    http::request<http::string_body> request_;
    http::response<http::string_body> response_;
    ErrorOfAsio error_;
};

Result<std::string> control(const RunDirectory& run, const std::vector<std::string>& set,
                            const std::string& drain) {
    const auto address = first_line(run.http_file());
    if (address.has_error()) return address.error();
    const auto token = first_line(run.token_file());
    if (token.has_error()) return token.error();
    Exchange exchange(*token, to_json(ControlRequest{set, whoever_asks(), drain}));
    const auto answered = exchange.with(*address);
    if (answered.has_error()) return answered.error();
    return control_answer_of(*answered);
}

}  // namespace

void add_control_verb(CLI::App& app, int& exit_code) {
    struct Options {
        std::string run_dir;
        std::vector<std::string> set;
        std::string drain;
    };
    const auto options = std::make_shared<Options>();
    CLI::App* verb = app.add_subcommand(
        "control",
        "Changes the staleness policy of a running job at a step boundary, or lets a worker leave");
    verb->add_option("RUN", options->run_dir, "The run directory")->required();
    CLI::Option* set =
        verb->add_option("--set", options->set,
                         "KEY=VALUE, like --set staleness.policy=ssp --set staleness.s=2; may be "
                         "repeated. Another policy drops the parameters of the one it replaces. "
                         "--set staleness.admission=step puts the policy under the lead shard, "
                         "block takes it away again")
            ->type_name("KEY=VALUE")
            ->expected(1)
            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
            ->allow_extra_args(false);
    CLI::Option* drain =
        verb->add_option("--drain", options->drain,
                         "A worker that finishes what it has pushed, gives its batches back and "
                         "ends; the job goes on without it")
            ->type_name("worker:N")
            ->excludes(set);
    verb->callback([options, set, drain, &exit_code] {
        if (set->count() == 0 && drain->count() == 0) {
            throw CLI::RequiredError("--set or --drain");
        }
        const auto decided = control(RunDirectory{options->run_dir}, options->set, options->drain);
        if (decided.has_error()) {
            exit_code = report("control", decided.error());
            return;
        }
        if (!options->drain.empty()) {
            fmt::print("{}\n", *decided);
            exit_code = value_of(ExitCode::ok);
            return;
        }
        fmt::print("{}; to go on from a checkpoint under it, give --set to --resume too\n",
                   *decided);
        exit_code = value_of(ExitCode::ok);
    });
}

}  // namespace detente
