// A process's end of its control link. One per process, shared by all nodes in it.
//
// Thread: owns one, on which both callbacks run; send(), announce() and leave() may be called from
// any. While a node is not running yet (its model loads), announce() sends its heartbeats for it.
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "common/runtime/loop.h"
#include "launch/control_connection.h"

namespace detente {

class ControlClient final : public ControlLink {
  public:
    // Tries until `deadline` has passed: the coordinator may start later than its peers. timed_out
    // or io, naming the address; wrong_build: the coordinator there is of another build (both are
    // named with their hosts; the coordinator is told too, as a hello of `speaks_for`, so that it
    // ends the job with both).
    static Result<std::unique_ptr<ControlClient>> connect(
        const std::string& address, Nanos deadline, const std::optional<NodeId>& speaks_for = {});
    ~ControlClient() override;
    ControlClient(const ControlClient&) = delete;
    ControlClient& operator=(const ControlClient&) = delete;

    void start(ControlConnection::Callbacks callbacks);
    void send(Message message) override;
    // Sends a Status with this activity as `node` now and every `interval`, until called with an
    // empty activity.
    void announce(NodeId node, std::string activity, Nanos interval);
    // Waits until the coordinator has everything that was sent and has closed its end, at most so
    // long. Nothing more is sent, no callback follows.
    void leave(Nanos deadline);
    // Once nothing has come for `limit`, calls `silent` on this thread, once, with how long it was;
    // looks every `interval`. While this process stood still itself, nobody's silence counts.
    void watch(Nanos limit, Nanos interval, std::function<void(Nanos silence)> silent);
    // Closes, and waits for the thread: no callback runs from here on.
    void stop();
    // Runs `action` on this thread in `delay`, unless the client is destroyed before.
    void after(Nanos delay, std::function<void()> action);
    // This end's address as the coordinator's host sees it: what peers on other hosts can reach.
    std::string local_address() const { return local_address_; }
    // Of the run, as the coordinator's greeting said.
    Generation generation() const { return generation_; }
    const std::string& job_text() const { return job_text_; }
    const std::string& run_dir() const { return run_dir_; }
    const std::string& coordinator_host() const { return coordinator_host_; }
    // Workers' places that were free when it greeted, with the next incarnation of each.
    const std::vector<Endpoint>& vacancies() const { return vacancies_; }

  private:
    struct Announced {
        std::string activity;
        Nanos interval{};
        std::shared_ptr<boost::asio::steady_timer> timer;
    };
    struct Watch {
        Nanos limit{};
        Nanos interval{};
        std::function<void(Nanos silence)> silent;
        std::chrono::steady_clock::time_point looked;
        std::shared_ptr<boost::asio::steady_timer> timer;
    };
    ControlClient();
    void announce_again(NodeId node);
    void look_again();

    boost::asio::io_context loop_{1};
    boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
    std::shared_ptr<ControlConnection> connection_;
    std::string local_address_;
    Generation generation_;
    std::string job_text_;
    std::string run_dir_;
    std::string coordinator_host_;
    std::vector<Endpoint> vacancies_;
    std::map<NodeId, Announced> announced_;
    std::shared_ptr<boost::asio::steady_timer> later_;
    std::chrono::steady_clock::time_point heard_;  // since when the other end has been silent
    std::optional<Watch> watch_;
    std::thread thread_;
};

}  // namespace detente
