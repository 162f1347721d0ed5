#include "tests/system/namespaces.h"

#include <unistd.h>

#include "launch/child_process.h"

namespace detente::test {

namespace {

std::string said(const std::vector<std::string>& words) {
    const auto child = run_child(words, "", std::chrono::seconds(10));
    if (child.has_error()) return child.error().text;
    return child->exit_code == 0 ? "" : words.front() + ": " + child->errors;
}

// `words` are of a fixture that hindrance() has tried: a failure is one of this machine.
void must(const std::vector<std::string>& words) {
    const std::string error = said(words);
    if (!error.empty()) throw std::runtime_error(error);
}

std::vector<std::string> in(const std::string& space, const std::vector<std::string>& words) {
    std::vector<std::string> all = {"ip", "netns", "exec", space};
    all.insert(all.end(), words.begin(), words.end());
    return all;
}

std::string link_of(int host) { return "to-h" + std::to_string(host); }

}  // namespace

std::string NetworkOfHosts::hindrance() {
    if (::geteuid() != 0) return "network namespaces need root";
    try {
        const NetworkOfHosts one(1);
        return said(in(one.name(1), {"unshare", "--uts", "hostname", "h1"}));
    } catch (const std::runtime_error& error) {
        return error.what();
    }
}

NetworkOfHosts::NetworkOfHosts(int hosts)
    : hosts_(hosts), prefix_("detente-" + std::to_string(::getpid()) + "-") {
    try {
        must({"ip", "netns", "add", name(0)});
        must(in(name(0), {"ip", "link", "add", "bridge", "type", "bridge"}));
        must(in(name(0), {"ip", "link", "set", "bridge", "up"}));
        for (int host = 1; host <= hosts; ++host) {
            must({"ip", "netns", "add", name(host)});
            must(in(name(0), {"ip", "link", "add", link_of(host), "type", "veth", "peer", "name",
                              "eth0", "netns", name(host)}));
            must(in(name(0), {"ip", "link", "set", link_of(host), "master", "bridge", "up"}));
            const std::string address = "10.77.0." + std::to_string(host) + "/24";
            must(in(name(host), {"ip", "addr", "add", address, "dev", "eth0"}));
            must(in(name(host), {"ip", "link", "set", "eth0", "up"}));
            must(in(name(host), {"ip", "link", "set", "lo", "up"}));
        }
    } catch (const std::runtime_error&) {
        for (int host = 0; host <= hosts_; ++host) said({"ip", "netns", "del", name(host)});
        throw;
    }
}

NetworkOfHosts::~NetworkOfHosts() {
    for (int host = 0; host <= hosts_; ++host) said({"ip", "netns", "del", name(host)});
}

std::string NetworkOfHosts::name(int host) const { return prefix_ + std::to_string(host); }

std::unique_ptr<Launched> NetworkOfHosts::start(int host, const std::vector<std::string>& variables,
                                                const std::vector<std::string>& arguments) {
    outputs_.push_back(std::make_unique<TemporaryFolder>());
    // Each turns into the next, so that the process that is started is the rank.
    std::vector<std::string> words = {
        "netns", "exec", name(host), "unshare",
        "--uts", "sh",   "-c",       "hostname h" + std::to_string(host) + " && exec \"$@\"",
        "sh",    "env"};
    words.insert(words.end(), variables.begin(), variables.end());
    words.push_back(DETENTE_PROGRAM);
    words.insert(words.end(), arguments.begin(), arguments.end());
    return std::make_unique<Launched>(*outputs_.back(), words, "ip");
}

void NetworkOfHosts::cut(int host) {
    must(in(name(0), {"ip", "link", "set", link_of(host), "down"}));
}

void NetworkOfHosts::mend(int host) {
    must(in(name(0), {"ip", "link", "set", link_of(host), "up"}));
}

void NetworkOfHosts::slow_down(int host, const std::string& rate) {
    const std::vector<std::string> rule = {"root",  "tbf",    "rate",    rate,
                                           "burst", "16kbit", "latency", "200ms"};
    std::vector<std::string> words = {"tc", "qdisc", "add", "dev", link_of(host)};
    words.insert(words.end(), rule.begin(), rule.end());
    must(in(name(0), words));
    words[4] = "eth0";
    must(in(name(host), words));
}

}  // namespace detente::test
