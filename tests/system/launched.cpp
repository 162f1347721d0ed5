#include "tests/system/launched.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>

namespace detente::test {

namespace json = boost::json;
namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

bool eventually(milliseconds limit, const std::function<bool()>& holds) {
    const auto until = std::chrono::steady_clock::now() + limit;
    while (!holds()) {
        if (std::chrono::steady_clock::now() > until) return false;
        ::poll(nullptr, 0, 10);
    }
    return true;
}

bool alive(pid_t pid) {
    // A zombie nobody has waited for yet is dead.
    std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
    std::string text((std::istreambuf_iterator<char>(stat)), std::istreambuf_iterator<char>());
    const std::size_t name_end = text.rfind(')');
    return name_end != std::string::npos && text.size() > name_end + 2 &&
           text[name_end + 2] != 'Z' && text[name_end + 2] != 'X';
}

namespace {

// One for each process: what another in the same folder said is not to be taken for its words.
std::string own_output_file(const TemporaryFolder& folder) {
    static int number = 0;
    return folder / ("output-" + std::to_string(number++));
}

}  // namespace

Launched::Launched(const TemporaryFolder& folder, const std::vector<std::string>& arguments,
                   const std::string& program)
    : output_file_(own_output_file(folder)) {
    std::vector<std::string> words = {program};
    words.insert(words.end(), arguments.begin(), arguments.end());
    std::vector<char*> pointers;
    for (std::string& word : words) pointers.push_back(word.data());
    pointers.push_back(nullptr);
    const std::string path = folder.path();
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::setpgid(0, 0);  // as a shell does it: Ctrl-Z is for a group that somebody can continue
    const int out = ::open(output_file_.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
    ::dup2(out, STDOUT_FILENO);
    ::dup2(out, STDERR_FILENO);
    if (::chdir(path.c_str()) != 0) ::_exit(126);
    ::execvp(pointers[0], pointers.data());
    ::_exit(127);
}

Launched::~Launched() {
    if (code_) return;
    for (const pid_t child : children()) ::kill(child, SIGKILL);
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
}

void Launched::signal(int number) const { ::kill(pid_, number); }

std::optional<int> Launched::wait(milliseconds limit) {
    eventually(limit, [this] {
        int status = 0;
        if (code_ || ::waitpid(pid_, &status, WNOHANG) != pid_) return code_.has_value();
        code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
        return true;
    });
    return code_;
}

std::string Launched::output() const { return bytes_of_file(output_file_); }

std::vector<pid_t> Launched::children() const {
    std::vector<pid_t> found;
    std::ifstream list("/proc/" + std::to_string(pid_) + "/task/" + std::to_string(pid_) +
                       "/children");
    for (pid_t child = 0; list >> child;) found.push_back(child);
    return found;
}

TinyRun::TinyRun(const std::string& options, const std::string& tables) {
    write_file(job_file(),
               "name = \"tiny\"\nservers = 2\nworkers = 2\n\n[model]\nlibrary = \"" +
                   std::string(TINY_MODEL) + "\"\n\n[model.options]\nsamples = 2048\n" + options +
                   "\n\n[data]\nbatch = 8\nlease_batches = 4\n\n[blocks]\nbytes = 4096\n\n"
                   "[rule]\nname = \"sgd\"\nlearning_rate = 0.05\n\n"
                   "[deadlines]\npeer_s = 2.0\nheartbeat_s = 0.1\nreply_s = 0.5\n\n"
                   "[transport]\nchecksum = \"on\"\n\n" +
                   tables);
}

std::vector<std::string> TinyRun::arguments(std::vector<std::string> more) const {
    std::vector<std::string> all = {"run", job_file(), "--out", run_dir()};
    all.insert(all.end(), more.begin(), more.end());
    return all;
}

std::string TinyRun::page(const std::string& path) const {
    const std::string address = bytes_of_file(run_dir() + "/http_address");
    const std::size_t colon = address.find(':');
    if (colon == std::string::npos) return "";
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(address.substr(colon + 1))));
    ::inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr);
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit{5, 0};
    ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    std::string answer;
    if (::connect(socket, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0) {
        const std::string request = "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n";
        [[maybe_unused]] const ssize_t sent =
            ::send(socket, request.data(), request.size(), MSG_NOSIGNAL);
        char buffer[4096];
        for (ssize_t got = 0; (got = ::recv(socket, buffer, sizeof(buffer), 0)) > 0;) {
            answer.append(buffer, static_cast<std::size_t>(got));
        }
    }
    ::close(socket);
    const std::size_t body = answer.find("\r\n\r\n");
    return body == std::string::npos ? "" : answer.substr(body + 4);
}

json::object TinyRun::status() const {
    const std::string text = page("/status");
    return text.empty() ? json::object() : json::parse(text).as_object();
}

std::map<std::string, pid_t> TinyRun::pids() const {
    std::map<std::string, pid_t> found;
    const json::object all = status();
    if (all.empty()) return found;
    for (const json::value& process : all.at("processes").as_array()) {
        const json::object& one = process.as_object();
        found[std::string(one.at("name").as_string())] =
            static_cast<pid_t>(one.at("pid").to_number<std::int64_t>());
    }
    return found;
}

double TinyRun::value(const std::string& process, const std::string& name) const {
    const json::object all = status();
    if (all.empty()) return 0;
    for (const json::value& entry : all.at("processes").as_array()) {
        const json::object& one = entry.as_object();
        const json::value* found = one.at("values").as_object().if_contains(name);
        if (one.at("name").as_string() == process && found != nullptr) {
            return found->to_number<double>();
        }
    }
    return 0;
}

bool TinyRun::training() const {
    const json::object all = status();
    return !all.empty() && all.at("stage").as_string() == "training";
}

bool TinyRun::reaches_training() const {
    return eventually(seconds(30), [this] { return training(); });
}

bool TinyRun::has_checkpoint() const {
    const json::object all = status();
    return !all.empty() && !all.at("checkpoints").as_array().empty();
}

json::object TinyRun::summary() const {
    const std::string text = bytes_of_file(run_dir() + "/summary.json");
    return text.empty() ? json::object() : json::parse(text).as_object();
}

std::uint64_t count(const json::object& object, const char* name) {
    return object.at(name).to_number<std::uint64_t>();
}

void check_books(const json::object& summary) {
    const json::object& books = summary.at("updates").as_object();
    CHECK(count(books, "computed") == count(books, "applied") + count(books, "rejected") +
                                          count(books, "cancelled") + count(books, "lost"));
    CHECK(count(books, "in_flight") == 0);
}

std::vector<std::string> words(std::vector<std::string> first,
                               const std::vector<std::string>& more) {
    first.insert(first.end(), more.begin(), more.end());
    return first;
}

Ranks by_hand(const TinyRun& run, const std::vector<std::string>& joins) {
    Ranks ranks;
    for (int rank = 0; rank < 5; ++rank) {
        ranks.push_back(std::make_unique<Launched>(
            run.folder(), words(joins, {"--rank", std::to_string(rank), "--size", "5"})));
    }
    return ranks;
}

Ranks join_by_hand(const TinyRun& run, const std::vector<std::string>& more) {
    return by_hand(run, words({"join", run.job_file(), "--out", run.run_dir()}, more));
}

}  // namespace detente::test
