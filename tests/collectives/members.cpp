#include "tests/collectives/members.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <thread>

#include "common/invariant.h"

namespace detente::testing {

Lines run_member(Member& member, const std::string& scenario) {
    try {
        return scenarios().at(scenario)(member);
    } catch (const std::exception& thrown) {
        return {std::string("threw: ") + thrown.what()};
    }
}

Reports run_on_threads(const MakeBackend& make, const std::string& scenario, std::size_t count) {
    Reports reports(count);
    std::vector<std::unique_ptr<CollectiveBackend>> backends;
    for (std::size_t i = 0; i < count; ++i) backends.push_back(make());
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < count; ++i) {
        threads.emplace_back([&, i] {
            Member member{i, count, *backends[i], [] {}, [](const std::string&) {}};
            reports[i] = run_member(member, scenario);
        });
    }
    for (std::thread& thread : threads) thread.join();
    return reports;
}

namespace {

void write_line(int file, std::string line) {
    line += '\n';
    invariant(::write(file, line.data(), line.size()) == static_cast<ssize_t>(line.size()),
              "the test reads what its members say");
}

struct Child {
    int pid = -1;
    int output = -1;
    std::string unread{};
    bool is_open = true;
};

// Takes what there is to read; whole lines go to `lines`.
void read_more(Child& child, Lines& lines) {
    char bytes[4096];
    const ssize_t got = ::read(child.output, bytes, sizeof bytes);
    if (got <= 0) {
        child.is_open = false;
        ::close(child.output);
        return;
    }
    child.unread.append(bytes, static_cast<std::size_t>(got));
    for (std::size_t end = 0; (end = child.unread.find('\n')) != std::string::npos;) {
        lines.push_back(child.unread.substr(0, end));
        child.unread.erase(0, end + 1);
    }
}

void read_all(std::vector<Child>& children, ProcessView& view, const Watch& watch) {
    const Time until = clock_now() + std::chrono::seconds(60);
    for (bool ended = false; !ended;) {
        if (watch) watch(view);
        std::vector<pollfd> waits;
        for (const Child& child : children) {
            waits.push_back({child.is_open ? child.output : -1, POLLIN, 0});
        }
        ::poll(waits.data(), waits.size(), 1000);
        ended = true;
        for (std::size_t i = 0; i < children.size(); ++i) {
            if (waits[i].revents != 0) read_more(children[i], view.said[i]);
            ended = ended && !children[i].is_open;
        }
        if (clock_now() < until) continue;
        for (std::size_t i = 0; i < children.size(); ++i) {
            if (!children[i].is_open) continue;
            ::kill(children[i].pid, SIGKILL);
            view.said[i].emplace_back("had not ended after a minute");
        }
    }
}

}  // namespace

Reports fork_members(
    const std::function<Lines(std::size_t, const std::function<void(const std::string&)>& say)>&
        body,
    std::size_t count, const Watch& watch) {
    std::vector<Child> children;
    std::fflush(nullptr);
    for (std::size_t i = 0; i < count; ++i) {
        int ends[2];
        invariant(::pipe(ends) == 0, "a test may open pipes");
        const pid_t pid = ::fork();
        invariant(pid >= 0, "a test may fork");
        if (pid == 0) {
            ::close(ends[0]);
            ::setenv(kMemberVariable, std::to_string(i).c_str(), 1);
            const auto say = [&ends](const std::string& line) { write_line(ends[1], line); };
            for (const std::string& line : body(i, say)) say(line);
            ::_exit(0);
        }
        ::close(ends[1]);
        children.push_back({pid, ends[0]});
    }
    ProcessView view;
    view.said.resize(count);
    for (const Child& child : children) view.pids.push_back(child.pid);
    read_all(children, view, watch);
    for (std::size_t i = 0; i < count; ++i) {
        int status = 0;
        ::waitpid(children[i].pid, &status, 0);
        if (WIFSIGNALED(status)) {
            const bool killed = WTERMSIG(status) == SIGKILL;
            view.said[i].push_back(killed ? "died" : "signal " + std::to_string(WTERMSIG(status)));
        }
    }
    return view.said;
}

Reports run_in_processes(const MakeBackend& make, const std::string& scenario, std::size_t count,
                         const Watch& watch) {
    return fork_members(
        [&](std::size_t i, const std::function<void(const std::string&)>& say) {
            const auto backend = make();
            Member member{i, count, *backend, [] { ::raise(SIGKILL); }, say};
            return run_member(member, scenario);
        },
        count, watch);
}

}  // namespace detente::testing
